//! llguidance's C interface; nothing is added to it.
extern crate llguidance;
pub use llguidance::ffi::*;
