//! The one place that reads a clock for the frame path: monotonic time since the process began.

use std::sync::OnceLock;
use vswitch_core::Instant;

#[expect(clippy::disallowed_types, reason = "this is the clock; everybody else gets the time as an argument")]
static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// Now, for the core.
#[must_use]
#[expect(clippy::disallowed_types, reason = "this is the clock; everybody else gets the time as an argument")]
pub fn now() -> Instant {
    let origin = ORIGIN.get_or_init(std::time::Instant::now);
    Instant::ZERO.after(origin.elapsed())
}
