//! Runs a case on an adapter.

use std::cell::RefCell;
use std::collections::HashMap;

use patchfield::dispatch::Readback;
use patchfield::{BufferView, Context, Error, Recording};

use super::case::{Case, Data, Input, Views};
use super::compare::compare;

/// A quiet NaN with a payload: what outputs and scratch hold before a run.
pub const POISON: u32 = 0x7fc0_dead;
/// What stands before and after every buffer.
const GUARD: u32 = 0x5afe_ba11;
const GUARD_BYTES: u64 = 256;

/// How a case ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Passed,
    /// The adapter lacks a feature or a limit that the case asks for.
    Skipped(String),
    Failed(String),
}

struct Fenced {
    name: &'static str,
    buffer: wgpu::Buffer,
    /// Bytes of data, and the bytes of the view: rounded up to words.
    len: u64,
    view: u64,
}

/// A last step between recording and encoding: the canaries put a broken shader in here.
pub type Tamper<'a> = &'a dyn Fn(&Context, Recording) -> Result<Recording, Error>;

/// Records a case without running it: on a noop device this compiles its shaders.
pub fn record(context: &Context, case: &Case) -> Result<Recording, Error> {
    let fenced = fence(context, case)?;
    (case.run)(context, &views(&fenced))
}

/// Where an output of a case lies.
pub struct Place {
    pub name: &'static str,
    /// Position among the buffers of the snapshot.
    pub buffer: usize,
    pub offset: u64,
    pub size: u64,
    pub is_half: bool,
}

/// A recorded case with what its buffers hold before it runs.
pub struct Snapshot {
    pub recording: Recording,
    pub buffers: Vec<(wgpu::Buffer, Vec<u8>)>,
    pub outputs: Vec<Place>,
}

/// Records a case and reads back every buffer that it works on, without running it.
pub fn snapshot(context: &Context, case: &Case) -> Result<Snapshot, Error> {
    let fenced = fence(context, case)?;
    for (fenced, (_, input)) in fenced.iter().zip(&case.buffers) {
        context.write(&fenced.buffer, 0, &contents(input, fenced.view))?;
    }
    let recording = (case.run)(context, &views(&fenced))?;
    let mut buffers: Vec<(wgpu::Buffer, Vec<u8>)> = Vec::new();
    let bound = recording.dispatches().iter().flat_map(|dispatch| dispatch.buffers());
    for buffer in fenced.iter().map(|f| &f.buffer).chain(bound.map(|(_, buffer, _)| buffer)) {
        if buffers.iter().all(|(known, _)| known != buffer) {
            buffers.push((buffer.clone(), context.read_blocking(BufferView::new(buffer))?));
        }
    }
    let place = |(position, (fenced, (_, input))): (usize, (&Fenced, &(&str, Input)))| Place {
        name: fenced.name,
        buffer: position,
        offset: GUARD_BYTES,
        size: fenced.view,
        is_half: matches!(input.data(), Data::F16(_)),
    };
    let outputs = fenced.iter().zip(&case.buffers).enumerate().map(place).collect();
    Ok(Snapshot { recording, buffers, outputs })
}

/// Runs a case twice and compares.
pub fn run(context: &Context, case: &Case, tamper: Option<Tamper<'_>>) -> Outcome {
    let fenced = match fence(context, case) {
        Ok(fenced) => fenced,
        Err(e) => return outcome(&e),
    };
    let mut first: Option<Vec<Vec<u8>>> = None;
    for _ in 0..2 {
        let results = match once(context, case, &fenced, tamper) {
            Ok(results) => results,
            Err(e) => return outcome(&e),
        };
        let Some(first) = &first else {
            if let Err(message) = check(case, &fenced, &results) {
                return Outcome::Failed(message);
            }
            first = Some(results);
            continue;
        };
        for ((fenced, a), b) in fenced.iter().zip(first).zip(&results) {
            if a != b {
                return Outcome::Failed(format!("`{}`: two runs differ", fenced.name));
            }
        }
    }
    Outcome::Passed
}

fn outcome(error: &Error) -> Outcome {
    match error {
        Error::FeatureMissing { .. } | Error::LimitExceeded { .. } => Outcome::Skipped(error.to_string()),
        _ => Outcome::Failed(error.to_string()),
    }
}

fn fence(context: &Context, case: &Case) -> Result<Vec<Fenced>, Error> {
    let make = |(name, input): &(&'static str, Input)| {
        let len = input.data().bytes().len() as u64;
        let view = len.max(4).next_multiple_of(4);
        let buffer = context.create_storage("case", view + 2 * GUARD_BYTES)?;
        Ok(Fenced { name, buffer, len, view })
    };
    case.buffers.iter().map(make).collect()
}

fn contents(input: &Input, view: u64) -> Vec<u8> {
    let guard = GUARD.to_le_bytes().repeat(GUARD_BYTES as usize / 4);
    let mut bytes = guard.clone();
    match input {
        Input::Read(data) | Input::Update(data) => bytes.extend_from_slice(data.bytes()),
        Input::Write(_) => bytes.extend(POISON.to_le_bytes().repeat(view as usize / 4)),
    }
    bytes.resize(GUARD_BYTES as usize + view as usize, 0);
    bytes.extend(guard);
    bytes
}

/// The views of a case's buffers, between the guards.
fn views<'a>(fenced: &'a [Fenced]) -> Views<'a> {
    let views: HashMap<_, _> =
        fenced.iter().map(|f| (f.name, BufferView::range(&f.buffer, GUARD_BYTES, f.view))).collect();
    Views { views, scratch_bytes: RefCell::new(0) }
}

fn once(
    context: &Context,
    case: &Case,
    fenced: &[Fenced],
    tamper: Option<Tamper<'_>>,
) -> Result<Vec<Vec<u8>>, Error> {
    for (fenced, (_, input)) in fenced.iter().zip(&case.buffers) {
        context.write(&fenced.buffer, 0, &contents(input, fenced.view))?;
    }
    let mut recording = (case.run)(context, &views(fenced))?;
    if let Some(tamper) = tamper {
        recording = tamper(context, recording)?;
    }
    let mut encoder = context.device().create_command_encoder(&Default::default());
    recording.encode(&mut encoder);
    let readbacks: Vec<_> = fenced
        .iter()
        .map(|f| Readback::record(context, &mut encoder, BufferView::new(&f.buffer)))
        .collect::<Result<_, _>>()?;
    context.queue().submit([encoder.finish()]);
    let results = readbacks
        .into_iter()
        .map(|readback| readback.wait(std::time::Duration::from_secs(120)))
        .collect::<Result<_, _>>();
    // Everything recorded so far has been submitted.
    drop(recording);
    context.reclaim_parameters();
    results
}

fn check(case: &Case, fenced: &[Fenced], results: &[Vec<u8>]) -> Result<(), String> {
    for ((fenced, (name, input)), bytes) in fenced.iter().zip(&case.buffers).zip(results) {
        let (start, end) = (GUARD_BYTES as usize, (GUARD_BYTES + fenced.view) as usize);
        let guards: Vec<u32> = bytemuck::pod_collect_to_vec(&[&bytes[..start], &bytes[end..]].concat());
        if guards.iter().any(|&word| word != GUARD) {
            return Err(format!("`{name}`: written outside its view"));
        }
        let data = &bytes[start..start + fenced.len as usize];
        match input {
            Input::Read(original) if original.bytes() != data => {
                return Err(format!("`{name}`: an input was changed"));
            }
            Input::Read(_) => continue,
            Input::Write(kind) | Input::Update(kind) => {
                let got = match kind {
                    Data::F32(_) => Data::F32(bytemuck::pod_collect_to_vec(data)),
                    Data::F16(_) => Data::F16(bytemuck::pod_collect_to_vec(data)),
                    Data::U32(_) => Data::U32(bytemuck::pod_collect_to_vec(data)),
                };
                let Some((_, expected)) = case.expected.iter().find(|(n, _)| n == name) else { continue };
                compare(&got, expected).map_err(|message| format!("`{name}`: {message}"))?;
            }
        }
    }
    Ok(())
}
