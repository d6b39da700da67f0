//! Canaries: bugs planted in a shader's text, each of which the cases must find.
//!
//! A canary counts as found when a case fails with the bug in a comparison or at a guard, not
//! because something does not compile, and passes when the same way is gone without the bug.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use patchfield::dispatch::{Arg, Shader};
use patchfield::{BufferView, Context, Error, Recording};

use crate::harness::adapter::Adapter;
use crate::harness::{Case, run};

/// A bug: in this kernel's cases, wherever `shader` is dispatched, `find` becomes `replace`.
#[derive(Debug, Clone, Copy)]
pub struct Canary {
    pub bug: &'static str,
    pub kernel: &'static str,
    /// `family/kernel::entry`.
    pub shader: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
}

/// The bugs. Each is of another kind.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the neighbour's element",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i],",
        replace: "activate(x[min(i + 1u, params.count - 1u)],",
    },
    Canary {
        bug: "one NaN",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "y[i] = activate(x[i], params.parameter);",
        replace: "y[i] = select(activate(x[i], params.parameter), bitcast<f32>(0x7fc00000u + params.first_group), i == 50u);",
    },
    Canary {
        bug: "one element never written",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "if i < params.count {",
        replace: "if i < params.count && i != 40u {",
    },
    Canary {
        bug: "the last element left out",
        kernel: "dense/activation",
        shader: "dense/activation::backward_vec4",
        find: "if i < params.count {",
        replace: "if i + 1u < params.count {",
    },
    Canary {
        bug: "2^x for e^x",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i],",
        replace: "activate(0.6931472 * x[i],",
    },
    Canary {
        bug: "a dropped gradient",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i] * activate",
        replace: "dx[i] = activate",
    },
    Canary {
        bug: "two inputs swapped",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i] * activate_derivative(x[i],",
        replace: "dx[i] = x[i] * activate_derivative(dy[i],",
    },
    Canary {
        bug: "two lanes swapped",
        kernel: "dense/activation",
        shader: "dense/activation::forward_vec4",
        find: "activate(v.z, p), activate(v.w, p)",
        replace: "activate(v.w, p), activate(v.z, p)",
    },
    Canary {
        bug: "the second row of the grid forgotten",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "linear_group(params.first_group, id, n)",
        replace: "(params.first_group + id.x)",
    },
    Canary {
        bug: "added to what was there",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i]",
        replace: "dx[i] += dy[i]",
    },
    Canary {
        bug: "twelve bits of precision lost",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i], params.parameter)",
        replace: "bitcast<f32>(bitcast<u32>(activate(x[i], params.parameter)) & 0xfffff000u)",
    },
    Canary {
        bug: "a wrong sign",
        kernel: "dense/activation",
        shader: "dense/activation::backward_vec4",
        find: "activate_derivative(v.w, p)",
        replace: "activate_derivative(-v.w, p)",
    },
    Canary {
        bug: "a missed barrier",
        kernel: "dense/loss",
        shader: "dense/loss::rows_gradient",
        find: "let total = block_sum(loss, local);",
        replace: "block_bits[local] = loss;
    for (var s = BLOCK / 2u; s > 0u; s = s >> 1u) {
        if local < s { block_bits[local] = add_bits(block_bits[local], block_bits[local + s]); }
    }
    let total = block_bits[0];",
    },
    Canary {
        bug: "a block's edge off by one",
        kernel: "dense/loss",
        shader: "dense/loss::elements",
        find: "* WORKGROUP + local;
        let at",
        replace: "* (WORKGROUP - 1u) + local;
        let at",
    },
    Canary {
        bug: "the mean's factor forgotten in the gradient",
        kernel: "dense/loss",
        shader: "dense/loss::elements_gradient",
        find: "bitcast<Words>(params.factor * e.slope)",
        replace: "bitcast<Words>(e.slope)",
    },
    Canary {
        bug: "an off-by-one tile edge",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "if row < params.m && column < params.n {",
        replace: "if row + 1u < params.m && column < params.n {",
    },
    Canary {
        bug: "a missed barrier after a tile is staged",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "end, local);
        workgroupBarrier();",
        replace: "end, local);",
    },
    Canary {
        bug: "a swapped stride",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp::forward",
        find: "let row = inputs + 1u;",
        replace: "let row = outputs + 1u;",
    },
    Canary {
        bug: "a missed barrier between the reads of one chunk of weights and the writes of the next",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp_staged::forward",
        find: "workgroupBarrier();
        for (var i = local; i < CHUNK; i += WORKGROUP) {",
        replace: "for (var i = local; i < CHUNK; i += WORKGROUP) {",
    },
    Canary {
        bug: "two axes swapped",
        kernel: "radial/grid_encoding",
        shader: "radial/grid_encoding::forward",
        find: "let w = corner_weight(t, corner);",
        replace: "let w = corner_weight(t.yxz, corner);",
    },
    Canary {
        bug: "the last of equal maxima for the first",
        kernel: "dense/reduce",
        shader: "dense/reduce::max_columns",
        find: "let take = r > best.rank;",
        replace: "let take = r >= best.rank;",
    },
    Canary {
        bug: "the offset of the block before",
        kernel: "dense/scan",
        shader: "dense/scan::scan_blocks",
        find: "scan_block(group, local, offsets[group]);",
        replace: "scan_block(group, local, offsets[max(group, 1u) - 1u]);",
    },
    Canary {
        bug: "equal keys in the wrong order",
        kernel: "dense/sort",
        shader: "dense/sort::scatter_indices",
        find: "let value = i;",
        replace: "let value = select(i, i ^ 1u, keys[i] == keys[min(i ^ 1u, params.count - 1u)]);",
    },
    Canary {
        bug: "a missed barrier between writers and readers",
        kernel: "dense/sort",
        shader: "dense/sort::scatter_values",
        find: "        workgroupBarrier();\n        for (var j",
        replace: "        for (var j",
    },
    Canary {
        bug: "a step that skips elements of a row",
        kernel: "dense/gather",
        shader: "dense/gather::add_rows",
        find: "if k % SPAN == 0u && left >= SPAN {",
        replace: "if k % SPAN == 0u && left + 1u >= SPAN {",
    },
    Canary {
        bug: "the other moment's decay",
        kernel: "dense/optimizer",
        shader: "dense/optimizer::adam",
        find: "params.one_minus_beta1 * g;",
        replace: "params.one_minus_beta2 * g;",
    },
    Canary {
        bug: "epsilon inside the root",
        kernel: "dense/optimizer",
        shader: "dense/optimizer::rmsprop",
        find: "g / (sqrt(v) + params.epsilon)",
        replace: "g / sqrt(v + params.epsilon)",
    },
    Canary {
        bug: "one buffer's partial sums over another's",
        kernel: "dense/norm",
        shader: "dense/norm::squares",
        find: "partial_sum[params.offset + group",
        replace: "partial_sum[group",
    },
    Canary {
        bug: "pairs made of the wrong words",
        kernel: "dense/random",
        shader: "dense/random::fill",
        find: "normal_pair(w.x, w.y), normal_pair(w.z, w.w)",
        replace: "normal_pair(w.x, w.z), normal_pair(w.y, w.w)",
    },
    Canary {
        bug: "keys shared by neighbouring rows",
        kernel: "dense/random",
        shader: "dense/random::permutation",
        find: "let block = 0x80000000u + 2u * row;",
        replace: "let block = 0x80000000u + row;",
    },
];

/// Races show best where subgroups are small.
pub fn best_adapter(adapters: &[Adapter]) -> Option<&Adapter> {
    adapters.iter().find(|adapter| adapter.name == "swiftshader").or(adapters.first())
}

/// Plants the bug and runs the kernel's cases until one fails. `Ok` tells how it was found.
pub fn plant(context: &Context, cases: &[Case], canary: &Canary) -> Result<String, String> {
    let bug = Planted::new(canary, canary.replace);
    let control = Planted::new(canary, canary.find);
    for case in cases.iter().filter(|case| case.kernel == canary.kernel) {
        let outcome = run::run(context, case, Some(&|context, recording| bug.tamper(context, recording)));
        if let Some(error) = bug.error.take() {
            return Err(error);
        }
        let run::Outcome::Failed(why) = outcome else { continue };
        if !bug.touched.get() {
            return Err(format!("{}: fails before the bug is planted: {why}", case.name));
        }
        return match run::run(context, case, Some(&|context, recording| control.tamper(context, recording))) {
            run::Outcome::Passed => Ok(format!("{}: {why}", case.name)),
            other => Err(format!("{}: not well without the bug either: {other:?}", case.name)),
        };
    }
    Err(if bug.touched.get() { "no case failed".into() } else { "no case runs that shader".into() })
}

/// The changed shaders of one canary, made when first dispatched.
struct Planted<'a> {
    canary: &'a Canary,
    replace: &'static str,
    /// By address: variants of one entry point differ in their bindings.
    shader: RefCell<HashMap<*const Shader, &'static Shader>>,
    touched: Cell<bool>,
    /// What keeps the bug from running at all.
    error: RefCell<Option<String>>,
}

impl<'a> Planted<'a> {
    fn new(canary: &'a Canary, replace: &'static str) -> Self {
        let (shader, touched, error) = Default::default();
        Self { canary, replace, shader, touched, error }
    }

    fn shader(&self, original: &'static Shader) -> Option<&'static Shader> {
        let Canary { bug, find, .. } = self.canary;
        if !original.source().contains(find) {
            *self.error.borrow_mut() = Some(format!("`{find}` is not in {}", original.file()));
            return None;
        }
        let mut known = self.shader.borrow_mut();
        Some(known.entry(std::ptr::from_ref(original)).or_insert_with(|| {
            // Shaders live as long as the program: a canary leaks its own two.
            let name = format!("{} with {bug}: {}", original.name(), self.replace);
            let source = original.source().replace(find, self.replace);
            Box::leak(Box::new(original.with_source(name.leak(), source.leak())))
        }))
    }

    fn tamper(&self, context: &Context, recording: Recording) -> Result<Recording, Error> {
        let mut out = Recording::new();
        for dispatch in recording.dispatches() {
            let original = dispatch.launch().shader();
            let changed = if original.name() == self.canary.shader { self.shader(original) } else { None };
            let Some(shader) = changed else {
                out.push(dispatch.clone());
                continue;
            };
            self.touched.set(true);
            let args: Vec<_> = dispatch
                .buffers()
                .iter()
                .map(|(what, buffer, range)| {
                    // An argument shorter than its binding's element was bound a whole element long.
                    let need = range.end - range.start;
                    let size = need.next_multiple_of(16).min(buffer.size() - range.start);
                    Arg { what, view: BufferView::range(buffer, range.start, size), need }
                })
                .collect();
            let bound = context.bind(&dispatch.launch().with_shader(shader), &args);
            out.push(bound.inspect_err(|error| *self.error.borrow_mut() = Some(error.to_string()))?);
        }
        Ok(out)
    }
}
