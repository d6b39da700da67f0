#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod attention;
pub mod dense;
pub mod dispatch;
pub mod models;
pub mod radial;
pub mod train;

pub use dispatch::{BufferView, Context, Error, Kernel, Planned, Recording, Requirements, Result};
pub use wgpu;
