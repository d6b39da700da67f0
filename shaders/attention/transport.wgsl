// Optimal transport of tokens to experts with at most `nonzeros` tokens an expert, by its duals.
//
//   min <T, C> + gamma / 2 |T|^2   over T >= 0 with row sums a, column sums b, |t_j|_0 <= k
//   s_ij = alpha_i - c_ij (+ beta_j);  S_j: the k largest of column j, equal ones by the smaller i
//   semi-dual: t_ij = [s_ij - theta_j]+ / gamma on S_j with sum_i t_ij = b_j (projection to the simplex)
//              <alpha, a> - sum_j (sum_i t_ij s_ij - gamma / 2 sum_i t_ij^2)
//   dual:      t_ij = [s_ij]+ / gamma on S_j
//              <alpha, a> + <beta, b> - sum_j sum_i [s_ij]+^2 / (2 gamma)
//   their gradients: a_i - sum_j t_ij, and b_j - sum_i t_ij.
//
// C and T lie expert by expert, [m, n]: what a workgroup reads lies together.
//
// columns: one workgroup an expert. s goes to T's place, computed once. The k-th largest is found by
//   radix: passes over digits of 4 bits of the value, as an ordered integer, then over those of the
//   index, so that ties are none, until as many have the digits as are wanted. theta by Newton's method on a piecewise linear function, which ends
//   after finitely many steps (Michelot 1986). Then T, dense.
// token_gradient: one invocation a token adds up its row in the order of the experts.
// objective: one workgroup.
// ascend: one workgroup: a step of accelerated ascent, whose momentum starts anew where it points
//   downhill (O'Donoghue and Candes 2015). Keeps the point whose plan's rows lack the least: of a plan
//   that lacks nothing, weak duality says that it is the best, and near ties the last one need not be.
// slots: one workgroup an expert lists its nonzeros in the order of their tokens.
// Workgroup memory: 4 WORKGROUP + 80 bytes (columns), 4 WORKGROUP (others).

struct Params {
    first_group: u32,
    groups: u32,
    tokens: u32,
    experts: u32,
    nonzeros: u32,
    index_digits: u32,  // of 4 bits, of a token's number
    gamma: f32,
    step: f32,          // of ascent; its first has flag 1
    flag: u32,          // objective: 1 if there is beta
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> cost: array<f32>;                 // [m, n]
@group(0) @binding(2) var<storage, read> alpha: array<f32>;                // [n]
@group(0) @binding(3) var<storage, read> of_expert: array<f32>;            // [m]: b, or beta of the dual
@group(0) @binding(4) var<storage, read_write> plan: array<f32>;           // [m, n]
@group(0) @binding(5) var<storage, read_write> shares: array<f32>;         // [m], of the objective
@group(0) @binding(6) var<storage, read_write> masses: array<f32>;         // [m], column sums of T
// token_gradient
@group(0) @binding(1) var<storage, read> plan_in: array<f32>;              // [m, n]
@group(0) @binding(2) var<storage, read> a: array<f32>;                    // [n]
@group(0) @binding(3) var<storage, read_write> dalpha: array<f32>;         // [n]
// objective
@group(0) @binding(1) var<storage, read> alpha_in: array<f32>;             // [n]
@group(0) @binding(3) var<storage, read> beta_in: array<f32>;              // [m]
@group(0) @binding(4) var<storage, read> b_in: array<f32>;                 // [m]
@group(0) @binding(5) var<storage, read> shares_in: array<f32>;            // [m]
@group(0) @binding(6) var<storage, read> masses_in: array<f32>;            // [m]
@group(0) @binding(7) var<storage, read_write> value: array<f32>;          // [1 + m]: the objective, dbeta
// ascend
@group(0) @binding(1) var<storage, read> gradient: array<f32>;             // [n]
@group(0) @binding(2) var<storage, read_write> point: array<f32>;          // [n]: where the gradient was taken
@group(0) @binding(3) var<storage, read_write> iterate: array<f32>;        // [n]
@group(0) @binding(4) var<storage, read_write> best: array<f32>;           // [n]
@group(0) @binding(5) var<storage, read_write> progress: array<f32>;       // [2]: momentum, what `best` lacks
// slots
@group(0) @binding(2) var<storage, read_write> slot_token: array<u32>;     // [m, k]
@group(0) @binding(3) var<storage, read_write> slot_weight: array<f32>;    // [m, k]

// What did not survive.
const LOWEST: f32 = -3e38;

var<workgroup> shared_value: array<f32, WORKGROUP>;
var<workgroup> shared_count: array<u32, WORKGROUP>;
var<workgroup> bins: array<atomic<u32>, 16>;
// The digits of the k-th largest that are known, of its value and of its turned index; how many of the
// survivors are still to be found among those with these digits, and whether that is all of them.
var<workgroup> known: vec4<u32>;

fn shared_sum(v: f32, local: u32) -> f32 {
    workgroupBarrier();
    shared_value[local] = v;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] += shared_value[local + half]; }
    }
    return workgroupUniformLoad(&shared_value[0]);
}

fn shared_max(v: f32, local: u32) -> f32 {
    workgroupBarrier();
    shared_value[local] = v;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] = max(shared_value[local], shared_value[local + half]); }
    }
    return workgroupUniformLoad(&shared_value[0]);
}

fn shared_count_sum(v: u32, local: u32) -> u32 {
    workgroupBarrier();
    shared_count[local] = v;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_count[local] += shared_count[local + half]; }
    }
    return workgroupUniformLoad(&shared_count[0]);
}

// Floats as integers of the same order; -0 below 0, which changes no result. Any NaN is the largest.
fn ordered(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0xffffffffu; }
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// A token's number turned round, so that among equals the smaller number is the larger.
fn turned(i: u32) -> u32 {
    return (1u << (4u * params.index_digits)) - 1u - i;
}

// The k-th largest of a column that lies in the plan: its value and its turned index. Uniform.
fn find_last(base: u32, local: u32) -> vec2<u32> {
    if local == 0u {
        known.x = 0u;
        known.y = 0u;
        known.z = params.nonzeros;
        known.w = 0u;
    }
    for (var pass_index = 0u; pass_index < 8u + params.index_digits; pass_index++) {
        if local < 16u { atomicStore(&bins[local], 0u); }
        workgroupBarrier();
        let of_value = pass_index < 8u;
        let shift = select(4u * (7u + params.index_digits - pass_index), 4u * (7u - min(pass_index, 7u)), of_value);
        let value_known = known.x;
        let index_known = known.y;
        for (var i = local; i < params.tokens; i += WORKGROUP) {
            let key = ordered(plan[base + i]);
            let digits = select(turned(i), key, of_value);
            // What is above the digit must agree with what is known; a shift by 32 is none.
            let above = (digits >> shift) >> 4u;
            let agrees = above == ((select(index_known, value_known, of_value) >> shift) >> 4u);
            if agrees && (of_value || key == value_known) {
                atomicAdd(&bins[(digits >> shift) & 15u], 1u);
            }
        }
        workgroupBarrier();
        if local == 0u {
            var left = known.z;
            var digit = 15u;
            var here = atomicLoad(&bins[15]);
            while here < left && digit > 0u {
                left -= here;
                digit -= 1u;
                here = atomicLoad(&bins[digit]);
            }
            known.z = left;
            known.w = select(0u, 1u, here == left);
            if of_value { known.x |= digit << shift; } else { known.y |= digit << shift; }
        }
        // Where all that have these digits survive, the digits below need not be known.
        if workgroupUniformLoad(&known).w == 1u { break; }
    }
    return vec2<u32>(known.x, known.y);
}

@compute @workgroup_size(WORKGROUP)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let base = group * params.tokens;
    // An invocation reads only what it wrote itself: no barrier for the plan.
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        var s = alpha[i] - cost[base + i];
        if !SEMI { s += of_expert[group]; }
        plan[base + i] = s;
    }
    let last = find_last(base, local);
    // What does not survive becomes LOWEST.
    var largest = LOWEST;
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        let s = plan[base + i];
        let key = ordered(s);
        let survives = key > last.x || (key == last.x && turned(i) >= last.y);
        plan[base + i] = select(LOWEST, s, survives);
        largest = max(largest, select(LOWEST, s, survives));
    }
    // theta, measured from the largest, from below: it can only rise.
    let top = shared_max(largest, local);
    var theta = 0.0;
    if SEMI {
        let mass = params.gamma * of_expert[group];
        var count = 0u;
        theta = LOWEST;
        for (var turn = 0u; turn < 64u; turn++) {
            var sum = 0.0;
            var mine = 0u;
            for (var i = local; i < params.tokens; i += WORKGROUP) {
                let s = plan[base + i];
                if s > LOWEST && s - top > theta {
                    sum += s - top;
                    mine += 1u;
                }
            }
            let above = shared_count_sum(mine, local);
            if above == count || above == 0u { break; }
            count = above;
            theta = (shared_sum(sum, local) - mass) / f32(above);
        }
        theta += top;
    }
    var share = 0.0;
    var sum = 0.0;
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        let s = plan[base + i];
        // A NaN, which comparisons lose, is the largest of its column, and goes through.
        let is_nan = (bitcast<u32>(s) & 0x7fffffffu) > 0x7f800000u;
        let t = select(select(0.0, max(s - theta, 0.0) / params.gamma, s > LOWEST), s, is_nan);
        plan[base + i] = t;
        // Not times 0: what costs infinitely much has s = -inf, and 0 times that is NaN.
        let of_token = select(t * (s - 0.5 * params.gamma * t), 0.5 * t * s, !SEMI);
        share += select(of_token, 0.0, s <= LOWEST);
        sum += t;
    }
    let total_share = shared_sum(share, local);
    let total = shared_sum(sum, local);
    if local == 0u {
        shares[group] = total_share;
        masses[group] = total;
    }
}

@compute @workgroup_size(WORKGROUP)
fn token_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.tokens {
        var sum = 0.0;
        for (var j = 0u; j < params.experts; j++) {
            sum += plan_in[j * params.tokens + i];
        }
        dalpha[i] = a[i] - sum;
    }
}

@compute @workgroup_size(WORKGROUP)
fn objective(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    var sum = 0.0;
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        sum += alpha_in[i] * a[i];
    }
    for (var j = local; j < params.experts; j += WORKGROUP) {
        sum -= shares_in[j];
        if params.flag == 1u { sum += beta_in[j] * b_in[j]; }
        value[1u + j] = b_in[j] - masses_in[j];
    }
    let total = shared_sum(sum, local);
    if local == 0u { value[0] = total; }
}

@compute @workgroup_size(WORKGROUP)
fn ascend(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first = params.flag == 1u;
    var dot = 0.0;
    var worst = 0.0;
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        if first {
            point[i] = 0.0;
            iterate[i] = 0.0;
        } else {
            let g = gradient[i];
            dot += g * (point[i] + params.step * g - iterate[i]);
            worst = max(worst, abs(g));
        }
    }
    let uphill = shared_sum(dot, local);
    let lack = shared_max(worst, local);
    var t = 1.0;
    if !first && uphill >= 0.0 { t = progress[0]; }
    let next = 0.5 * (1.0 + sqrt(1.0 + 4.0 * t * t));
    let factor = (t - 1.0) / next;
    var least = lack;
    if !first { least = progress[1]; }
    for (var i = local; i < params.tokens; i += WORKGROUP) {
        if first {
            best[i] = 0.0;
        } else {
            if lack < least { best[i] = point[i]; }
            let moved = point[i] + params.step * gradient[i];
            point[i] = moved + factor * (moved - iterate[i]);
            iterate[i] = moved;
        }
    }
    storageBarrier();
    if local == 0u {
        progress[0] = select(next, 1.0, first);
        progress[1] = select(min(lack, least), 3e38, first);
    }
}

@compute @workgroup_size(WORKGROUP)
fn slots(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let base = group * params.tokens;
    let first = group * params.nonzeros;
    var filled = 0u;
    for (var start = 0u; start < params.tokens; start += WORKGROUP) {
        let i = start + local;
        var t = 0.0;
        if i < params.tokens { t = plan_in[base + i]; }
        workgroupBarrier();
        shared_count[local] = select(0u, 1u, t > 0.0);
        // Inclusive prefix sums.
        for (var step = 1u; step < WORKGROUP; step *= 2u) {
            workgroupBarrier();
            var below = 0u;
            if local >= step { below = shared_count[local - step]; }
            workgroupBarrier();
            shared_count[local] += below;
        }
        workgroupBarrier();
        let place = filled + shared_count[local] - 1u;
        if t > 0.0 && place < params.nonzeros {
            slot_token[first + place] = i;
            slot_weight[first + place] = t;
        }
        filled += shared_count[WORKGROUP - 1u];
    }
    // Empty slots name no token.
    for (var k = min(filled, params.nonzeros) + local; k < params.nonzeros; k += WORKGROUP) {
        slot_token[first + k] = 0xffffffffu;
        slot_weight[first + k] = 0.0;
    }
}

