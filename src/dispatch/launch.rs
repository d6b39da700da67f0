//! A launch: one dispatch, complete but for its buffers. Pure data, made by `plan` functions.

use super::capabilities::Capabilities;
use super::error::{Error, Result};
use super::grid::{self, Cost};
use super::shader::{Constants, Shader};

/// One dispatch without its buffers: the shader, its permutation, its parameters and its grid.
#[derive(Debug, Clone)]
pub struct Launch {
    pub(super) shader: &'static Shader,
    pub(super) constants: Constants,
    /// The uniform block: `first_group`, `groups`, then the kernel's own parameters.
    pub(super) params: Vec<u8>,
    pub(super) grid: [u32; 3],
    /// The least work it can be done with.
    pub cost: Cost,
}

/// The longest uniform block.
pub(crate) const PARAMS_MAX: usize = 256;

impl Launch {
    /// `groups` workgroups in a linear order. `params` follows the two words that every uniform
    /// block begins with; its fields must be 4-byte scalars.
    pub(crate) fn new<P: bytemuck::Pod>(
        shader: &'static Shader,
        constants: Constants,
        params: &P,
        groups: u64,
        caps: &Capabilities,
        cost: Cost,
    ) -> Result<Self> {
        let groups = u32::try_from(groups)
            .map_err(|_| Error::IndexOverflow { what: "workgroups", elements: groups })?;
        let mut bytes = Vec::with_capacity(PARAMS_MAX);
        bytes.extend_from_slice(bytemuck::bytes_of(&[0, groups]));
        bytes.extend_from_slice(bytemuck::bytes_of(params));
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        debug_assert!(bytes.len() <= PARAMS_MAX, "{} has too many parameters", shader.name);
        let needed = shader.bindings.len() as u32;
        let have = caps.limits.max_storage_buffers_per_shader_stage;
        if needed > have {
            return Err(Error::LimitExceeded {
                what: shader.name,
                limit: "max_storage_buffers_per_shader_stage",
                need: needed.into(),
                have: have.into(),
            });
        }
        let grid = grid::fold(shader.name, groups, &caps.limits)?;
        let constants = constants.on(shader, caps);
        Ok(Self { shader, constants, params: bytes, grid, cost })
    }

    /// The same launch of another shader with the same bindings.
    #[must_use]
    pub fn with_shader(&self, shader: &'static Shader) -> Self {
        Self { shader, ..self.clone() }
    }

    fn header(&self, word: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.params[word * 4..word * 4 + 4]);
        u32::from_le_bytes(bytes)
    }

    /// The shader.
    #[must_use]
    pub fn shader(&self) -> &'static Shader {
        self.shader
    }

    /// The permutation.
    #[must_use]
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// The workgroups in each dimension.
    #[must_use]
    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    /// The first workgroup's linear index, and the index after the last.
    #[must_use]
    pub fn groups(&self) -> std::ops::Range<u32> {
        self.header(0)..self.header(1)
    }

    /// The uniform block as the shader reads it.
    #[must_use]
    pub fn params(&self) -> &[u8] {
        &self.params
    }

    /// The same work in pieces of at most `weight` each (see [`Cost::weight`]), as far as
    /// workgroups can be told apart: a single workgroup is never split.
    pub(super) fn split(&self, weight: u64, limits: &wgpu::Limits) -> Result<Vec<Self>> {
        let range = self.groups();
        let groups = range.end - range.start;
        let pieces = self.cost.weight().div_ceil(weight.max(1)).clamp(1, u64::from(groups.max(1)));
        let step = u64::from(groups).div_ceil(pieces).max(1) as u32;
        let mut out = Vec::new();
        let mut first = range.start;
        while first < range.end {
            let count = step.min(range.end - first);
            let share = |work: u64| (u128::from(work) * u128::from(count) / u128::from(groups.max(1))) as u64;
            let mut piece = self.clone();
            piece.params[..4].copy_from_slice(&first.to_le_bytes());
            piece.params[4..8].copy_from_slice(&(first + count).to_le_bytes());
            piece.grid = grid::fold(self.shader.name, count, limits)?;
            piece.cost = Cost::new(share(self.cost.flops), share(self.cost.bytes));
            out.push(piece);
            first += count;
        }
        Ok(out)
    }
}

/// What a kernel will do on a given device: pure data, made without touching the device.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The name of the variant that was chosen.
    pub variant: &'static str,
    /// The dispatches, in order.
    pub launches: Vec<Launch>,
    /// Bytes of each scratch buffer that the caller supplies. Contents need not survive between
    /// two recordings, and need no initialisation.
    pub scratch: Vec<u64>,
}

impl Plan {
    /// A plan of one launch without scratch.
    pub(crate) fn single(variant: &'static str, launch: Launch) -> Self {
        Self { variant, launches: vec![launch], scratch: Vec::new() }
    }

    /// The plans of a kernel's parts, one after another, with the scratch of all of them.
    pub(crate) fn join(variant: &'static str, parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self { variant, ..Self::default() };
        for part in parts {
            whole.launches.extend(part.launches);
            whole.scratch.extend(part.scratch);
        }
        whole
    }

    /// `count` elements of scratch for a kernel of parts, as a part of its own.
    pub(crate) fn words(count: u32) -> Self {
        Self { scratch: vec![u64::from(count) * 4], ..Self::default() }
    }

    /// The least work of the whole plan.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.launches.iter().map(|launch| launch.cost).sum()
    }

    /// All scratch together, in bytes.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch.iter().sum()
    }
}

/// `Err` unless the device can run workgroups of this size with this much workgroup memory.
///
/// wgpu does not check workgroup memory itself.
pub(crate) fn check_workgroup(
    what: &'static str,
    invocations: u32,
    bytes: u32,
    caps: &Capabilities,
) -> Result<()> {
    let have =
        caps.limits.max_compute_invocations_per_workgroup.min(caps.limits.max_compute_workgroup_size_x);
    if invocations > have {
        return Err(Error::LimitExceeded {
            what,
            limit: "max_compute_invocations_per_workgroup",
            need: invocations.into(),
            have: have.into(),
        });
    }
    if bytes > caps.workgroup_bytes() {
        return Err(Error::LimitExceeded {
            what,
            limit: "max_compute_workgroup_storage_size",
            need: bytes.into(),
            have: caps.workgroup_bytes().into(),
        });
    }
    Ok(())
}
