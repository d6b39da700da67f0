//! A case: buffers, what to record, and what must come out.

use std::cell::RefCell;
use std::collections::HashMap;

use half::f16;
use patchfield::{BufferView, Context, Kernel, Recording, Result};

/// Contents of a buffer.
#[derive(Debug, Clone)]
pub enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U32(Vec<u32>),
}

impl Data {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::F16(v) => bytemuck::cast_slice(v),
            Self::U32(v) => bytemuck::cast_slice(v),
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F16(_) => "f16",
            Self::U32(_) => "u32",
        }
    }

    /// f32 values rounded to f16.
    pub fn f16(values: &[f32]) -> Self {
        Self::F16(values.iter().map(|&v| f16::from_f32(v)).collect())
    }
}

/// How a buffer enters a case.
#[derive(Debug, Clone)]
pub enum Input {
    /// Read; must be unchanged afterwards.
    Read(Data),
    /// Written: `n` elements of the type, poisoned with NaN before the run.
    Write(Data),
    /// Read and written: starts with these contents.
    Update(Data),
}

impl Input {
    pub fn data(&self) -> &Data {
        match self {
            Self::Read(d) | Self::Write(d) | Self::Update(d) => d,
        }
    }
}

/// What an output must hold.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Per element: `|gpu - value| <= absolute + ulps * 2^-24 * magnitude` (f16 outputs: plus 2^-11 * |value|).
    Near {
        value: Vec<f64>,
        /// Sum of the magnitudes of the terms that make each value: the scale of its rounding error.
        magnitude: Vec<f64>,
        ulps: f64,
        absolute: f64,
    },
    /// The same bits.
    Exact(Vec<u32>),
    /// Nothing is said about the contents (state that another output depends on).
    Any,
}

impl Expected {
    /// From (value, magnitude) pairs.
    pub fn near(terms: &[(f64, f64)], ulps: f64, absolute: f64) -> Self {
        Self::Near {
            value: terms.iter().map(|t| t.0).collect(),
            magnitude: terms.iter().map(|t| t.1).collect(),
            ulps,
            absolute,
        }
    }
}

type Run = Box<dyn Fn(&Context, &Views<'_>) -> Result<Recording> + Send + Sync>;

/// One row of a kernel's table.
pub struct Case {
    /// `family/kernel`.
    pub kernel: &'static str,
    /// Sizes and whatever else tells it from its neighbours.
    pub name: String,
    pub buffers: Vec<(&'static str, Input)>,
    pub expected: Vec<(&'static str, Expected)>,
    pub run: Run,
}

impl Case {
    /// A case without buffers; add them with the methods below.
    pub fn new(
        kernel: &'static str,
        name: impl Into<String>,
        run: impl Fn(&Context, &Views<'_>) -> Result<Recording> + Send + Sync + 'static,
    ) -> Self {
        let (buffers, expected) = (Vec::new(), Vec::new());
        Self { kernel, name: name.into(), buffers, expected, run: Box::new(run) }
    }

    #[must_use]
    pub fn read(mut self, name: &'static str, data: Data) -> Self {
        self.buffers.push((name, Input::Read(data)));
        self
    }

    /// An f32 input.
    #[must_use]
    pub fn input(self, name: &'static str, data: &[f32]) -> Self {
        self.read(name, Data::F32(data.to_vec()))
    }

    /// An f32 output.
    #[must_use]
    pub fn output(mut self, name: &'static str, expected: Expected) -> Self {
        let n = match &expected {
            Expected::Near { value, .. } => value.len(),
            Expected::Exact(v) => v.len(),
            Expected::Any => 0,
        };
        let data = match &expected {
            Expected::Exact(_) => Data::U32(vec![0; n]),
            _ => Data::F32(vec![0.0; n]),
        };
        self.buffers.push((name, Input::Write(data)));
        self.expected.push((name, expected));
        self
    }

    /// An f16 output.
    #[must_use]
    pub fn output_f16(mut self, name: &'static str, expected: Expected) -> Self {
        let n = match &expected {
            Expected::Near { value, .. } => value.len(),
            _ => 0,
        };
        self.buffers.push((name, Input::Write(Data::F16(vec![f16::ZERO; n]))));
        self.expected.push((name, expected));
        self
    }

    /// A buffer that is read and then overwritten.
    #[must_use]
    pub fn update(mut self, name: &'static str, data: Data, expected: Expected) -> Self {
        self.buffers.push((name, Input::Update(data)));
        self.expected.push((name, expected));
        self
    }
}

/// The buffers of a case on a device, by name.
pub struct Views<'a> {
    pub(super) views: HashMap<&'static str, BufferView<'a>>,
    pub(super) scratch_bytes: RefCell<u64>,
}

impl<'a> Views<'a> {
    /// The view of the buffer with this name.
    pub fn get(&self, name: &str) -> BufferView<'a> {
        *self.views.get(name).unwrap_or_else(|| panic!("the case has no buffer named {name}"))
    }

    /// Scratch for a kernel, poisoned: a kernel may not rely on what is in it.
    pub fn scratch<K: Kernel>(&self, kernel: &K) -> Result<patchfield::dispatch::Scratch> {
        let scratch = kernel.create_scratch()?;
        for buffer in &scratch.0 {
            *self.scratch_bytes.borrow_mut() += buffer.size();
            let poison = vec![super::run::POISON; buffer.size() as usize / 4];
            kernel.context().write(buffer, 0, bytemuck::cast_slice(&poison))?;
        }
        Ok(scratch)
    }
}

impl<'a> std::ops::Index<&str> for Views<'a> {
    type Output = BufferView<'a>;
    fn index(&self, name: &str) -> &BufferView<'a> {
        self.views.get(name).unwrap_or_else(|| panic!("the case has no buffer named {name}"))
    }
}
