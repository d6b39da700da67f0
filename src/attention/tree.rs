//! Trees from dependency masks, on the host.

use crate::dispatch::{Result, check_config, check_shape};

/// A tree over tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyTree {
    /// The token without a parent.
    pub root: usize,
    /// Parent of each token; that of the root is the root.
    pub parents: Vec<usize>,
}

fn check(mask: &[f32], tokens: usize) -> Result<()> {
    check_config(tokens > 0, "tokens", "at least 1", tokens)?;
    let square = tokens.checked_mul(tokens);
    check_shape(square == Some(mask.len()), "mask", format!("{tokens} x {tokens} elements"), mask.len())?;
    let finite = mask.iter().all(|v| v.is_finite());
    check_config(finite, "mask", "finite", mask.iter().find(|v| !v.is_finite()))
}

/// The most likely parent of each token: the `j != i` with the largest `mask[j, i]`, the first such.
/// A single token is its own parent. The result may hold cycles; see [`dependency_tree`].
///
/// `mask` is `[tokens, tokens]`, row j the messages that j receives (DependencyViT, arXiv 2304.03282,
/// the soft dependency mask).
pub fn likely_parents(mask: &[f32], tokens: usize) -> Result<Vec<usize>> {
    check(mask, tokens)?;
    let weight = |j: usize, i: usize| mask[j * tokens + i];
    let better = |i: usize| {
        move |best: Option<usize>, j: usize| match best {
            Some(best) if weight(j, i) <= weight(best, i) => Some(best),
            _ => Some(j),
        }
    };
    Ok((0..tokens).map(|i| (0..tokens).filter(|&j| j != i).fold(None, better(i)).unwrap_or(i)).collect())
}

/// The tree of largest total weight with the given root: a maximum spanning arborescence (Chu and Liu
/// 1965, Edmonds 1967). `mask[j, i]` is the weight of j as the parent of i. Without a root, the token
/// that receives most, `sum over i of mask[j, i]`, is the root. Ties go to smaller indices.
pub fn dependency_tree(mask: &[f32], tokens: usize, root: Option<usize>) -> Result<DependencyTree> {
    check(mask, tokens)?;
    let received = |j: usize| mask[j * tokens..][..tokens].iter().map(|&v| f64::from(v)).sum::<f64>();
    let most = || (1..tokens).fold(0, |best, j| if received(j) > received(best) { j } else { best });
    let root = root.unwrap_or_else(most);
    check_config(root < tokens, "root", "below `tokens`", root)?;
    let weights = mask.iter().map(|&v| f64::from(v)).collect();
    Ok(DependencyTree { root, parents: arborescence(weights, tokens, root) })
}

/// A cycle among the parents, if there is one.
fn cycle(parents: &[usize], root: usize) -> Option<Vec<usize>> {
    // The walk that a node was first met on.
    let mut met = vec![usize::MAX; parents.len()];
    met[root] = parents.len();
    for start in 0..parents.len() {
        let mut node = start;
        while met[node] == usize::MAX {
            met[node] = start;
            node = parents[node];
        }
        if met[node] == start {
            let mut cycle = vec![node];
            let mut next = parents[node];
            while next != node {
                cycle.push(next);
                next = parents[next];
            }
            return Some(cycle);
        }
    }
    None
}

/// `weights[j * n + i]`: of the edge from j to i.
///
/// The best parents are a tree, or hold a cycle. A cycle is contracted to one node: an edge into it
/// counts what it gains over the cycle's own edge, whose place it takes.
fn arborescence(weights: Vec<f64>, n: usize, root: usize) -> Vec<usize> {
    let best = |i: usize| {
        let others = (0..n).filter(|&j| j != i);
        others.reduce(|a, b| if weights[b * n + i] > weights[a * n + i] { b } else { a }).unwrap_or(i)
    };
    let mut parents: Vec<_> = (0..n).map(|i| if i == root { root } else { best(i) }).collect();
    let Some(cycle) = cycle(&parents, root) else { return parents };
    let mut in_cycle = vec![false; n];
    cycle.iter().for_each(|&i| in_cycle[i] = true);
    // Nodes of the smaller graph: those outside the cycle in their order, then the cycle itself.
    let outside: Vec<_> = (0..n).filter(|&i| !in_cycle[i]).collect();
    let m = outside.len() + 1;
    let mut smaller = vec![0.0; m * m];
    // The edge that an edge from or to the cycle stands for: from which node in it, to which.
    let (mut from, mut to) = (vec![0; m - 1], vec![0; m - 1]);
    for (a, &i) in outside.iter().enumerate() {
        for (b, &j) in outside.iter().enumerate() {
            smaller[a * m + b] = weights[i * n + j];
        }
        let gain = |v: usize| weights[i * n + v] - weights[parents[v] * n + v];
        let better = |a: usize, b: usize| if gain(b) > gain(a) { b } else { a };
        to[a] = cycle.iter().copied().reduce(better).unwrap_or(i);
        smaller[a * m + m - 1] = gain(to[a]);
        let better = |a: usize, b: usize| if weights[b * n + i] > weights[a * n + i] { b } else { a };
        from[a] = cycle.iter().copied().reduce(better).unwrap_or(i);
        smaller[(m - 1) * m + a] = weights[from[a] * n + i];
    }
    // One level of many is kept at a time.
    drop(weights);
    // The root is outside every cycle.
    let small_root = outside.iter().position(|&i| i == root).unwrap_or(0);
    let small = arborescence(smaller, m, small_root);
    for (a, &i) in outside.iter().enumerate() {
        if i != root {
            parents[i] = if small[a] == m - 1 { from[a] } else { outside[small[a]] };
        }
    }
    // The cycle opens where its best entry comes in.
    let entry = small[m - 1];
    parents[to[entry]] = outside[entry];
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(mask: &[f32], parents: &[usize], root: usize) -> f64 {
        let n = parents.len();
        (0..n).filter(|&i| i != root).map(|i| f64::from(mask[parents[i] * n + i])).sum()
    }

    fn is_tree(parents: &[usize], root: usize) -> bool {
        (0..parents.len()).all(|mut i| {
            for _ in 0..parents.len() {
                i = parents[i];
            }
            i == root
        }) && parents[root] == root
    }

    /// The best of all n^(n - 1) choices of parents.
    fn brute_force(mask: &[f32], n: usize, root: usize) -> f64 {
        let mut best = f64::NEG_INFINITY;
        for choice in 0..n.pow(n as u32 - 1) {
            let (mut rest, mut parents) = (choice, vec![root; n]);
            for i in (0..n).filter(|&i| i != root) {
                parents[i] = rest % n;
                rest /= n;
            }
            if is_tree(&parents, root) {
                best = best.max(total(mask, &parents, root));
            }
        }
        best
    }

    #[test]
    fn no_tree_is_heavier() {
        let mut state = 7u64;
        let mut draw = |levels: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % levels) as f32 - 3.0
        };
        for n in 1..=6 {
            // Few levels make ties, many make cycles of all lengths.
            for levels in [3, 8, 1000] {
                for root in 0..n {
                    for _ in 0..if n == 6 { 4 } else { 20 } {
                        let mask: Vec<f32> = (0..n * n).map(|_| draw(levels)).collect();
                        let tree = dependency_tree(&mask, n, Some(root)).unwrap();
                        assert!(is_tree(&tree.parents, root), "{mask:?} {tree:?}");
                        let weight = total(&mask, &tree.parents, root);
                        assert!((weight - brute_force(&mask, n, root)).abs() < 1e-9, "{mask:?} {tree:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn cycles_within_cycles_open() {
        // Many nodes whose best parents form one long cycle, far heavier than the way in.
        let n = 60;
        let mut mask = vec![0.01; n * n];
        for i in 1..n {
            mask[(if i + 1 < n { i + 1 } else { 1 }) * n + i] = 5.0;
        }
        mask[17] = 0.5;
        let tree = dependency_tree(&mask, n, Some(0)).unwrap();
        assert!(is_tree(&tree.parents, 0));
        assert_eq!(tree.parents[17], 0);
        assert_eq!(likely_parents(&mask, n).unwrap()[17], 18);
    }

    #[test]
    fn the_root_receives_most_and_bad_masks_are_refused() {
        let mask = [0.1, 0.2, 0.3, 0.4, 0.0, 0.5, 0.2, 0.1, 0.1];
        assert_eq!(dependency_tree(&mask, 3, None).unwrap().root, 1);
        assert_eq!(likely_parents(&mask, 3).unwrap(), [1, 0, 1]);
        assert_eq!(dependency_tree(&[0.5], 1, None).unwrap(), DependencyTree { root: 0, parents: vec![0] });
        assert!(dependency_tree(&mask, 3, Some(3)).is_err());
        assert!(dependency_tree(&mask, 2, None).is_err());
        assert!(dependency_tree(&[], 0, None).is_err());
        assert!(likely_parents(&[f32::NAN], 1).is_err());
    }
}
