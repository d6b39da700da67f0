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

/// The bugs of all kernels; each stands beside the cases that must find it.
pub fn all() -> Vec<Canary> {
    [crate::attention::CANARIES, crate::dense::CANARIES, crate::radial::CANARIES].concat().concat()
}

/// Plants the bug on one adapter after another until the cases of one find it: a variant runs only
/// where its features are. Races show best where subgroups are small, so SwiftShader goes first.
/// `Ok` tells how it was found, `Err` what each adapter said.
pub fn hunt(adapters: &[Adapter], cases: &[Case], canary: &Canary) -> Result<String, String> {
    let mut sorted: Vec<_> = adapters.iter().collect();
    sorted.sort_by_key(|adapter| adapter.name != "swiftshader");
    let mut lives = Vec::new();
    for adapter in sorted {
        match plant(&adapter.context, cases, canary) {
            Ok(how) => return Ok(format!("{}: {how}", adapter.name)),
            Err(why) => lives.push(format!("{}: {why}", adapter.name)),
        }
    }
    Err(lives.join("; "))
}

/// Plants the bug and runs the kernel's cases until one fails. `Ok` tells how it was found.
fn plant(context: &Context, cases: &[Case], canary: &Canary) -> Result<String, String> {
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
