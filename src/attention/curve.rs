//! An order of the cells of a grid in which neighbours stay close: the generalised Hilbert curve for
//! any height and width (the Gilbert curve).

use crate::dispatch::{Result, check_config, count};

/// A vector along an axis, of at least one cell.
#[derive(Debug, Clone, Copy)]
struct Side([i64; 2]);

impl Side {
    fn length(self) -> i64 {
        self.0[0].abs() + self.0[1].abs()
    }

    fn step(self) -> [i64; 2] {
        [self.0[0].signum(), self.0[1].signum()]
    }

    /// The first half; an even number of cells if there are more than two, so that the parts can be
    /// walked without a diagonal step wherever the whole can.
    fn half(self) -> Self {
        let length = self.length();
        let mut half = length / 2;
        if half % 2 == 1 && length > 2 {
            half += 1;
        }
        let step = self.step();
        Self([step[0] * half, step[1] * half])
    }

    fn less(self, other: Self) -> Self {
        Self([self.0[0] - other.0[0], self.0[1] - other.0[1]])
    }

    fn back(self) -> Self {
        Self([-self.0[0], -self.0[1]])
    }
}

fn plus(a: [i64; 2], b: [i64; 2]) -> [i64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// Walks the rectangle spanned by `along` and `across` from the corner `at` to the other end of
/// `along`.
fn walk(at: [i64; 2], along: Side, across: Side, cells: &mut Vec<[u32; 2]>) {
    let (length, width) = (along.length(), across.length());
    if length == 1 || width == 1 {
        let (step, n) = if width == 1 { (along.step(), length) } else { (across.step(), width) };
        cells.extend((0..n).map(|k| [(at[0] + k * step[0]) as u32, (at[1] + k * step[1]) as u32]));
        return;
    }
    let half = along.half();
    if 2 * length > 3 * width {
        // Long: two rectangles one after the other.
        walk(at, half, across, cells);
        walk(plus(at, half.0), along.less(half), across, cells);
        return;
    }
    // There, along, and back: the ends of the three meet.
    let up = across.half();
    walk(at, up, half, cells);
    walk(plus(at, up.0), along, across.less(up), cells);
    let end = [
        along.0[0] - along.step()[0] + up.0[0] - up.step()[0],
        along.0[1] - along.step()[1] + up.0[1] - up.step()[1],
    ];
    walk(plus(at, end), up.back(), along.less(half).back(), cells);
}

/// The cells of a `height x width` grid in the order of the curve, as `[x, y]`.
///
/// Every cell comes once, and each step goes to one of the four neighbours. Only where the longer
/// side is odd and the shorter one even is there one diagonal step: no walk from corner to corner
/// along the longer side can do without, since each step changes the colour of a chessboard.
pub fn gilbert_curve(height: u32, width: u32) -> Result<Vec<[u32; 2]>> {
    check_config(height > 0, "height", "at least 1", height)?;
    check_config(width > 0, "width", "at least 1", width)?;
    let mut cells = Vec::with_capacity(count("grid", &[height, width])? as usize);
    let (x, y) = (Side([width.into(), 0]), Side([0, height.into()]));
    let (along, across) = if width >= height { (x, y) } else { (y, x) };
    walk([0, 0], along, across, &mut cells);
    Ok(cells)
}

/// The place on the curve of each cell of a `height x width` grid, row by row.
pub fn gilbert_ranks(height: u32, width: u32) -> Result<Vec<u32>> {
    let cells = gilbert_curve(height, width)?;
    let mut ranks = vec![0; cells.len()];
    for (rank, [x, y]) in cells.into_iter().enumerate() {
        ranks[y as usize * width as usize + x as usize] = rank as u32;
    }
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_comes_once_by_neighbour_steps() {
        let large = [(224, 224), (37, 300), (299, 2), (1, 1000), (14, 197), (101, 100), (255, 256)];
        let small = (1..=24).flat_map(|h| (1..=24).map(move |w| (h, w)));
        for (height, width) in small.chain(large) {
            let cells = gilbert_curve(height, width).unwrap();
            let mut seen = vec![false; (height * width) as usize];
            for &[x, y] in &cells {
                assert!(x < width && y < height, "{height}x{width}: [{x}, {y}]");
                let cell = &mut seen[(y * width + x) as usize];
                assert!(!*cell, "{height}x{width}: [{x}, {y}] twice");
                *cell = true;
            }
            assert_eq!(cells.len(), seen.len(), "{height}x{width}");
            let mut diagonals = 0;
            for pair in cells.windows(2) {
                let step = [pair[0][0].abs_diff(pair[1][0]), pair[0][1].abs_diff(pair[1][1])];
                assert!(step[0] <= 1 && step[1] <= 1, "{height}x{width}: {pair:?}");
                diagonals += u32::from(step == [1, 1]);
            }
            let (long, short) = (height.max(width), height.min(width));
            let demanded = u32::from(long % 2 == 1 && short % 2 == 0);
            assert_eq!(diagonals, demanded, "{height}x{width}");
            assert_eq!(cells[0], [0, 0]);
        }
    }

    #[test]
    fn ranks_are_the_inverse_of_the_curve() {
        let cells = gilbert_curve(7, 10).unwrap();
        let ranks = gilbert_ranks(7, 10).unwrap();
        for (rank, [x, y]) in cells.into_iter().enumerate() {
            assert_eq!(ranks[(y * 10 + x) as usize], rank as u32);
        }
        assert!(gilbert_curve(0, 3).is_err());
        assert!(gilbert_ranks(65_536, 65_536).is_err());
    }
}
