//! Composition of shaders: *directives* + *const prelude* + *common files* + *the kernel*,
//! concatenated, with every line's origin kept for error messages.

use std::fmt::Write as _;

use super::buffer::Access;
use super::capabilities::Capabilities;

/// A file of `shaders/common/`: functions without bindings.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Path from the root of the project.
    pub file: &'static str,
    /// Its text.
    pub source: &'static str,
}

/// One storage binding of a shader; binding 0 is always the uniform `params`.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The name in the shader.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// Bytes of one element of its array: 4, or 16 for `vec4<f32>`.
    pub stride: u64,
}

impl Binding {
    /// The same binding as an array of `vec4<f32>` or `vec4<u32>`.
    pub(crate) const fn vec4(self) -> Self {
        self.stride(16)
    }

    /// The same binding as an array of structures of `bytes` bytes.
    pub(crate) const fn stride(self, bytes: u64) -> Self {
        Self { stride: bytes, ..self }
    }
}

/// A read-only storage binding of 4-byte (or 2-byte) elements.
pub(crate) const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read, stride: 4 }
}

/// A read-write storage binding of 4-byte (or 2-byte) elements.
pub(crate) const fn write(name: &'static str) -> Binding {
    Binding { name, access: Access::Write, stride: 4 }
}

/// One entry point of one WGSL file.
///
/// The fields are private because `trusted` speaks for the text: only the crate's own files are
/// compiled without loop bounding.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    pub(crate) source: &'static str,
    pub(crate) entry: &'static str,
    pub(crate) common: &'static [Common],
    pub(crate) bindings: &'static [Binding],
    pub(crate) trusted: bool,
}

impl Shader {
    /// `family/kernel::entry`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Path of its file from the root of the project.
    #[must_use]
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The text of the file.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// The entry point.
    #[must_use]
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// The storage bindings, numbered from 1 in this order.
    #[must_use]
    pub fn bindings(&self) -> &'static [Binding] {
        self.bindings
    }

    /// The same bindings with another text, compiled with every run-time check. `name` must be new.
    #[must_use]
    pub fn with_source(&self, name: &'static str, source: &'static str) -> Self {
        Self { name, source, trusted: false, ..*self }
    }
}

/// `shader!("family/kernel", "entry", [common, files], [read("a"), write("b")])`.
macro_rules! shader {
    ($file:literal, $entry:literal, [$($common:ident),* $(,)?], [$($binding:expr),* $(,)?]) => {
        $crate::dispatch::Shader {
            name: concat!($file, "::", $entry),
            file: concat!("shaders/", $file, ".wgsl"),
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl")),
            entry: $entry,
            common: &[$($crate::dispatch::Common {
                file: concat!("shaders/common/", stringify!($common), ".wgsl"),
                source: include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"), "/shaders/common/", stringify!($common), ".wgsl"
                )),
            }),*],
            bindings: &[$($binding),*],
            trusted: true,
        }
    };
}
pub(crate) use shader;

/// The const prelude of one permutation: `const TILE: u32 = 8u;`, `alias Storage = f16;`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Constants {
    text: String,
    f16: bool,
    subgroups: bool,
    wide: bool,
}

/// How four floats lie in a buffer, for a shader that leaves it to the device: as they are, or as 64-bit integers.
const QUADS: &str = "shaders/common/quads.wgsl";
const QUADS_WIDE: Common = Common {
    file: "shaders/common/quads_wide.wgsl",
    source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/common/quads_wide.wgsl")),
};

impl Constants {
    /// An empty prelude.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `const NAME: u32 = value;`
    #[must_use]
    pub fn u32(mut self, name: &str, value: u32) -> Self {
        let _ = writeln!(self.text, "const {name}: u32 = {value}u;");
        self
    }

    /// `const NAME: bool = value;`
    #[must_use]
    pub fn bool(mut self, name: &str, value: bool) -> Self {
        let _ = writeln!(self.text, "const {name}: bool = {value};");
        self
    }

    /// `alias NAME = f16;` or `= f32`; the first adds `enable f16;`.
    #[must_use]
    pub fn float(mut self, name: &str, f16: bool) -> Self {
        let _ = writeln!(self.text, "alias {name} = {};", if f16 { "f16" } else { "f32" });
        self.f16 |= f16;
        self
    }

    /// `alias NAME = type;`
    #[must_use]
    pub fn alias(mut self, name: &str, wgsl_type: &str) -> Self {
        let _ = writeln!(self.text, "alias {name} = {wgsl_type};");
        self
    }

    /// Marks the shader as using subgroup operations.
    #[must_use]
    pub fn subgroups(mut self) -> Self {
        self.subgroups = true;
        self
    }

    /// What the device makes of a shader: where it gains by that, quads are 64-bit integers.
    pub(super) fn on(mut self, shader: &Shader, caps: &Capabilities) -> Self {
        self.wide = caps.has_slow_loads() && shader.common.iter().any(|common| common.file == QUADS);
        self
    }
}

/// Who compiles the text. The dialects differ in their directives alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// naga: subgroup operations need no directive (naga 30 refuses it).
    Naga,
    /// A browser: `enable subgroups;` is required.
    Browser,
}

/// A composed shader, with the origin of every line.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The whole text.
    pub wgsl: String,
    origin: Vec<(&'static str, u32)>,
}

/// Puts a shader together.
#[must_use]
pub fn compose(shader: &Shader, constants: &Constants, dialect: Dialect) -> Composed {
    let mut out = Composed { wgsl: String::new(), origin: Vec::new() };
    let mut directives = String::new();
    if constants.f16 {
        directives.push_str("enable f16;\n");
    }
    if constants.subgroups && dialect == Dialect::Browser {
        // Its analysis takes what subgroupAny returns for different in each invocation.
        directives.push_str("enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n");
    }
    let mut push = |file: &'static str, text: &str| {
        for (index, line) in text.lines().enumerate() {
            out.wgsl.push_str(line);
            out.wgsl.push('\n');
            out.origin.push((file, index as u32 + 1));
        }
    };
    push("directives", &directives);
    push("prelude", &constants.text);
    for common in shader.common {
        let common = if constants.wide && common.file == QUADS { &QUADS_WIDE } else { common };
        push(common.file, common.source);
    }
    push(shader.file, shader.source);
    out
}

impl Composed {
    /// The file and line that a person wrote, for a line of the composed text (from 1).
    #[must_use]
    pub fn origin(&self, line: usize) -> Option<(&'static str, u32)> {
        self.origin.get(line.checked_sub(1)?).copied()
    }

    /// Rewrites the places in a compiler's message (`wgsl:12:5`) to the files people wrote.
    #[must_use]
    pub fn explain(&self, message: &str) -> String {
        let mut out = String::with_capacity(message.len());
        let mut rest = message;
        while let Some(at) = rest.find("wgsl:") {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            let after = &after["wgsl:".len()..];
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            match after[..digits].parse().ok().and_then(|line| self.origin(line)) {
                Some((file, line)) => {
                    let _ = write!(out, "{file}:{line}");
                    rest = &after[digits..];
                }
                None => {
                    out.push_str("wgsl:");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}
