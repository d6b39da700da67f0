// Rows by index, and the transpose: rows added up where the index says.
//
//   gather:       y_i = x_index(i), and 0 where index(i) >= rows     x: [rows, width], y: [n, width]
//   scatter-add:  dx_r = sum of dy_i over the i with index(i) = r    dy: [n, width], dx: [rows, width]
//                 (plus what dx held, if asked for)
//   Each is the other's gradient. An index of `rows` or more reads zeros and adds nothing.
//
// gather: one invocation an element of y (a vec4 of it, where width is a multiple of 4).
// Scatter-add uses no atomics and repeats bit by bit:
//   clamp_index: min(index, rows) as sort keys                       keys: [n]
//   (a stable argsort of the keys, dense/sort, gives `sorted` and `order`, [n] each)
//   row_starts:  where each row's run begins in `sorted`, by bisection    starts: [rows + 1]
//   sum_blocks:  the sum of each aligned block of SPAN sorted elements that belong to one row;
//   sum_spans:   of each aligned SPAN such blocks                    blocks, spans: [.., width]
//   add_rows:    one invocation an element of dx walks its row's run in the largest of those steps
//                that fit: 4 SPAN + n / SPAN^2 additions at most, also if one row takes all.
//                Blocks that several rows share are neither summed nor read.
// Workgroup memory: 0 bytes.
// Versions: scalar; vec4.

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,
    n: u32,
    width: u32,       // in Words or Floats
    count: u32,       // of the launch's outputs
    accumulate: u32,  // 1 to add to what dx held
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;                // [n]
@group(0) @binding(2) var<storage, read> x: array<Words>;                  // [rows, width], any words
@group(0) @binding(3) var<storage, read_write> y: array<Words>;            // [n, width]
@group(0) @binding(2) var<storage, read_write> keys: array<u32>;           // [n]
@group(0) @binding(1) var<storage, read> sorted: array<u32>;               // [n]
@group(0) @binding(2) var<storage, read_write> starts_out: array<u32>;     // [rows + 1]
@group(0) @binding(2) var<storage, read> order: array<u32>;                // [n]
@group(0) @binding(3) var<storage, read> dy: array<Floats>;                // [n, width]
@group(0) @binding(4) var<storage, read_write> blocks_out: array<Floats>;  // [n / SPAN, width]
@group(0) @binding(2) var<storage, read> blocks_in: array<Floats>;         // [n / SPAN, width]
@group(0) @binding(3) var<storage, read_write> spans_out: array<Floats>;   // [n / SPAN^2, width]
@group(0) @binding(1) var<storage, read> starts: array<u32>;               // [rows + 1]
@group(0) @binding(4) var<storage, read> blocks: array<Floats>;            // [n / SPAN, width]
@group(0) @binding(5) var<storage, read> spans: array<Floats>;             // [n / SPAN^2, width]
@group(0) @binding(6) var<storage, read_write> dx: array<Floats>;          // [rows, width]

@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let row = index[i / params.width];
        var words = Words();
        if row < params.rows {
            words = x[row * params.width + i % params.width];
        }
        y[i] = words;
    }
}

@compute @workgroup_size(WORKGROUP)
fn clamp_index(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        keys[i] = min(index[i], params.rows);
    }
}

@compute @workgroup_size(WORKGROUP)
fn row_starts(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * WORKGROUP + local;
    if group < params.groups && row < params.count {
        // The elements before `low` are smaller than the row, those from `high` on are not.
        var low = 0u;
        var high = params.n;
        while low < high {
            let middle = low + (high - low) / 2u;
            if sorted[middle] < row {
                low = middle + 1u;
            } else {
                high = middle;
            }
        }
        starts_out[row] = low;
    }
}

// Whether the sorted elements from `first` on, `length` of them, belong to one row.
fn one_row(first: u32, length: u32) -> bool {
    let row = sorted[first];
    return row < params.rows && row == sorted[first + length - 1u];
}

@compute @workgroup_size(WORKGROUP)
fn sum_blocks(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let first = i / params.width * SPAN;
        if one_row(first, SPAN) {
            var sum = Floats();
            for (var k = 0u; k < SPAN; k++) {
                sum += dy[order[first + k] * params.width + i % params.width];
            }
            blocks_out[i] = sum;
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_spans(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let first = i / params.width * SPAN;
        if one_row(first * SPAN, SPAN * SPAN) {
            var sum = Floats();
            for (var k = 0u; k < SPAN; k++) {
                sum += blocks_in[(first + k) * params.width + i % params.width];
            }
            spans_out[i] = sum;
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn add_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let row = i / params.width;
        let column = i % params.width;
        let end = starts[row + 1u];
        var k = starts[row];
        var sum = Floats();
        while k < end {
            let left = end - k;
            if k % (SPAN * SPAN) == 0u && left >= SPAN * SPAN {
                sum += spans[k / (SPAN * SPAN) * params.width + column];
                k += SPAN * SPAN;
            } else if k % SPAN == 0u && left >= SPAN {
                sum += blocks[k / SPAN * params.width + column];
                k += SPAN;
            } else {
                sum += dy[order[k] * params.width + column];
                k += 1u;
            }
        }
        if params.accumulate == 1u {
            sum += dx[i];
        }
        dx[i] = sum;
    }
}
