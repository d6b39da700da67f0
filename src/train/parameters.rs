//! Named parameters.

use super::tensor::Tensor;
use crate::dispatch::{Error, Result};

/// Tensors with names, in a fixed order. The names are those of the checkpoint file.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    entries: Vec<(String, Tensor)>,
}

impl Parameters {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor; the name must be new.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let name = name.into();
        if self.get(&name).is_some() {
            return Err(Error::Config { what: "parameter name", need: "new".into(), got: name });
        }
        self.entries.push((name, tensor.clone()));
        Ok(())
    }

    /// The tensor with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// All elements of all tensors.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.iter().map(|(_, tensor)| u64::from(tensor.len())).sum()
    }
}
