//! Checkpoints and model files: safetensors, written atomically and read with suspicion.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};

use crate::dispatch::{Error, Result};

/// The contents of a safetensors file: f32 tensors by name, and strings by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

/// What two files say differently.
#[cfg(feature = "blocking")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference<'a> {
    pub name: &'a str,
    pub own: Option<&'a str>,
    pub others: Option<&'a str>,
}

struct Entry<'a>(&'a [usize], &'a [f32]);

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.0
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        // safetensors is little-endian, as is every device that wgpu runs on.
        bytemuck::cast_slice(self.1).into()
    }
    fn data_len(&self) -> usize {
        size_of_val(self.1)
    }
}

fn refuse(path: &Path, message: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.into(), message: message.into() }
}

impl Checkpoint {
    /// Nothing in it yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, in the place of one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, shape: &[u32], data: Vec<f32>) {
        let name = name.into();
        self.tensors.retain(|(other, ..)| *other != name);
        self.tensors.push((name, shape.iter().map(|&n| n as usize).collect(), data));
    }

    /// Adds a string.
    pub fn set(&mut self, name: impl Into<String>, value: impl ToString) {
        self.metadata.insert(name.into(), value.to_string());
    }

    /// Whether every element of every tensor is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.tensors.iter().all(|(.., data)| data.iter().all(|v| v.is_finite()))
    }

    /// A tensor that must have this shape and hold finite numbers.
    pub fn tensor(&self, path: &Path, name: &str, shape: &[u32]) -> Result<&[f32]> {
        let (_, have, data) = self
            .tensors
            .iter()
            .find(|(n, ..)| n == name)
            .ok_or_else(|| refuse(path, format!("there is no tensor `{name}`")))?;
        if !have.iter().copied().eq(shape.iter().map(|&n| n as usize)) {
            return Err(refuse(path, format!("tensor `{name}` has the shape {have:?} instead of {shape:?}")));
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return Err(refuse(path, format!("tensor `{name}` holds {} at [{at}]", data[at])));
        }
        Ok(data)
    }

    /// A string, parsed.
    pub fn get<T: std::str::FromStr>(&self, path: &Path, name: &str) -> Result<T> {
        let text = self
            .metadata
            .get(name)
            .ok_or_else(|| refuse(path, format!("there is no `{name}` in the metadata")))?;
        text.parse().map_err(|_| refuse(path, format!("`{name}` = {text:?} in the metadata cannot be read")))
    }

    /// A string that the two have not in common, but for those named in `apart`.
    #[cfg(feature = "blocking")]
    pub(crate) fn difference<'a>(&'a self, other: &'a Self, apart: &[&str]) -> Option<Difference<'a>> {
        let names = self.metadata.keys().chain(other.metadata.keys()).map(String::as_str);
        let differences = names.filter(|name| !apart.contains(name)).filter_map(|name| {
            let [own, others] = [self, other].map(|file| file.metadata.get(name).map(String::as_str));
            (own != others).then_some(Difference { name, own, others })
        });
        // What both have tells more.
        differences.min_by_key(|found| (found.own.is_none() || found.others.is_none(), found.name))
    }

    /// A string, parsed, or `absent` if there is none: what an older file does not say.
    pub fn get_or<T: std::str::FromStr>(&self, path: &Path, name: &str, absent: T) -> Result<T> {
        if self.has(name) { self.get(path, name) } else { Ok(absent) }
    }

    /// Whether there is such a string.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.metadata.contains_key(name)
    }

    /// Writes the file whole or not at all: into a temporary file beside it, which then takes its name.
    pub fn save(&self, path: &Path) -> Result<()> {
        let entries: Vec<_> = self.tensors.iter().map(|(n, shape, data)| (n, Entry(shape, data))).collect();
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        let bytes = safetensors::serialize(entries, metadata).map_err(|e| refuse(path, e.to_string()))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".partial");
        let temporary = PathBuf::from(temporary);
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|error| {
            // The old file, if there is one, is untouched; the partial one is of no use.
            let _ = std::fs::remove_file(&temporary);
            refuse(path, format!("cannot be written: {error}"))
        })
    }

    /// Reads a file. Lengths, offsets and types are checked before anything is believed.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| refuse(path, format!("cannot be read: {e}")))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| refuse(path, format!("is not a whole safetensors file: {e}")))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| refuse(path, e.to_string()))?;
        let mut out = Self { metadata: header.metadata().clone().unwrap_or_default(), ..Self::default() };
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(refuse(path, format!("tensor `{name}` is {:?}; only F32 is read", view.dtype())));
            }
            let data = bytemuck::pod_collect_to_vec(view.data());
            out.tensors.push((name.into(), view.shape().to_vec(), data));
        }
        out.tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("patchfield-{}-{name}", std::process::id()))
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let path = file("round-trip.safetensors");
        let mut checkpoint = Checkpoint::new();
        checkpoint.insert("a", &[1], vec![7.0]);
        checkpoint.insert("a", &[2, 2], vec![1.0, -0.0, 3.5e-39, 4.0]);
        checkpoint.set("step", 17);
        checkpoint.save(&path).unwrap();
        let loaded = Checkpoint::load(&path).unwrap();
        assert_eq!(loaded, checkpoint);
        assert_eq!(loaded.get::<u64>(&path, "step"), Ok(17));
        assert!(loaded.tensor(&path, "a", &[4]).unwrap_err().to_string().contains("[2, 2] instead of [4]"));
        assert!(loaded.get::<u64>(&path, "seed").is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn truncated_and_hostile_files_are_refused() {
        let path = file("hostile.safetensors");
        let mut checkpoint = Checkpoint::new();
        checkpoint.insert("a", &[64], vec![1.0; 64]);
        checkpoint.save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(Checkpoint::load(&path), Err(Error::Checkpoint { .. })), "cut at {cut}");
        }
        let mut longer = u64::MAX.to_le_bytes().to_vec();
        longer.extend(&whole[8..]);
        std::fs::write(&path, longer).unwrap();
        assert!(Checkpoint::load(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        // A directory in the way of the temporary file: nothing can be written.
        let path = file("kept.safetensors");
        let mut old = Checkpoint::new();
        old.set("step", 1);
        old.save(&path).unwrap();
        let mut blocked = path.clone().into_os_string();
        blocked.push(".partial");
        std::fs::create_dir(&blocked).unwrap();
        assert!(Checkpoint::new().save(&path).is_err());
        assert_eq!(Checkpoint::load(&path).unwrap(), old);
        std::fs::remove_dir(&blocked).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
