//! Parameter slots: one per distinct uniform block, written once and never again.
//!
//! `Queue::write_buffer` is not ordered with the commands of an encoder: two recordings that wrote
//! to one slot would both see the last value. A slot that never changes is right in any order, and
//! a program that repeats itself (a training step, say) allocates nothing after its first pass.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Result;
use super::launch::PARAMS_MAX;
use super::scope;

const SLOTS_PER_PAGE: u32 = 256;

/// Where a uniform block lies.
#[derive(Debug)]
pub(super) struct Slot {
    pub page: wgpu::Buffer,
    pub offset: u32,
}

#[derive(Debug, Default)]
pub(super) struct ParamSlots {
    taken: HashMap<Box<[u8]>, Arc<Slot>>,
    free: Vec<Slot>,
    pages: u64,
}

impl ParamSlots {
    /// The slot that holds `bytes`, written now if there is none yet.
    pub fn slot(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, bytes: &[u8]) -> Result<Arc<Slot>> {
        if let Some(slot) = self.taken.get(bytes) {
            return Ok(slot.clone());
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.add_page(device, queue)?;
                // `add_page` has just filled the list.
                match self.free.pop() {
                    Some(slot) => slot,
                    None => return Err(super::Error::Device("no parameter slot".into())),
                }
            }
        };
        queue.write_buffer(&slot.page, slot.offset.into(), bytes);
        let slot = Arc::new(slot);
        self.taken.insert(bytes.into(), slot.clone());
        Ok(slot)
    }

    fn add_page(&mut self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<()> {
        let stride = (PARAMS_MAX as u32).max(device.limits().min_uniform_buffer_offset_alignment);
        let size = u64::from(stride) * u64::from(SLOTS_PER_PAGE);
        let page = scope::allocate(device, "parameters", size, || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("patchfield parameters"),
                size,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        // wgpu clears what was never written of a bound buffer when its user is submitted, and with
        // dynamic offsets the whole page counts as used: a slot that another thread writes between the
        // look and the submit would be cleared after it was written. A page that was written leaves
        // nothing to clear.
        queue.write_buffer(&page, 0, &vec![0; size as usize]);
        self.free.extend((0..SLOTS_PER_PAGE).rev().map(|i| Slot { page: page.clone(), offset: i * stride }));
        self.pages += 1;
        Ok(())
    }

    /// Frees the slots that no recording holds any more.
    pub fn reclaim(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        for (bytes, slot) in taken {
            match Arc::try_unwrap(slot) {
                Ok(slot) => self.free.push(slot),
                Err(slot) => {
                    self.taken.insert(bytes, slot);
                }
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.pages * u64::from(SLOTS_PER_PAGE) * PARAMS_MAX as u64
    }
}
