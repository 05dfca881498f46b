//! A switch in a static library that has a panic handler and an allocator of its own and no std: what a kernel or a
//! microcontroller would link. When std slips into the core, its panic handler meets ours: error E0152, duplicate
//! lang item.
//!
//! Not here: anything to run.
#![no_std]

extern crate alloc;

use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::{Arrival, Attachment, Batch, Instant, MacTable, Offload, Port, PortId, TxList};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

const ROOM: usize = 64 << 20;

/// Gives memory out and never takes it back.
#[repr(align(4096))]
struct Bump(core::cell::UnsafeCell<[u8; ROOM]>, AtomicUsize);

// SAFETY: the bytes are handed out in pieces that do not overlap, under an atomic counter.
unsafe impl Sync for Bump {}

// SAFETY: a piece is as long and as aligned as was asked, inside the array, and given out once.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let wanted = layout.size() + layout.align();
        let at = self.1.fetch_add(wanted, Ordering::Relaxed);
        if layout.align() > 4096 || at.checked_add(wanted).is_none_or(|end| end > ROOM) {
            return core::ptr::null_mut();
        }
        // SAFETY: `at` rounded up lies below `at + align`, so all of the piece is inside the array.
        unsafe { self.0.get().cast::<u8>().add(at.next_multiple_of(layout.align())) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static MEMORY: Bump = Bump(core::cell::UnsafeCell::new([0; ROOM]), AtomicUsize::new(0));

/// Makes a switch of two ports and lets it forward one frame; the number of frames that leave.
#[unsafe(no_mangle)]
pub extern "C" fn vswitch_no_std_forward(frame: &[u8; 64], now: u64) -> usize {
    let (Some(one), Some(two)) = (PortId::new(1), PortId::new(2)) else { return 0 };
    let ports = [one, two].map(|id| Port::new(id, Attachment::trunk_all()));
    let Ok(topology) = Topology::new(alloc::vec![Bridge::default()], ports) else { return 0 };
    let macs = MacTable::new(1024, Duration::from_secs(300), [now, 1]);
    [one, two].into_iter().for_each(|id| macs.bind(id, None));
    let mut worker = Worker::new(Arc::new(topology), Arc::new(macs));
    let (mut batch, mut tx) = (Batch::new(1), TxList::new());
    batch.copy_in(Arrival::Port(one), frame, Offload::NONE);
    worker.forward(Instant::from_nanos(now), &batch, &mut tx);
    worker.tick(Instant::from_nanos(now));
    let told = worker.explain(Instant::from_nanos(now), Arrival::Port(one), frame);
    tx.len() + usize::from(alloc::format!("{told:?}").is_empty())
}
