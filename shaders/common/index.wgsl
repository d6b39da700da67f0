// The linear index of this workgroup. Grids longer than one dimension allows are folded into two
// rows or more, and long work is cut into chunks that start at `first`.
fn linear_group(first: u32, id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return first + id.x + id.y * groups.x;
}
