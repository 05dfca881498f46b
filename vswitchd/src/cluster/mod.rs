//! What nodes tell each other through a store. Not here: how a store is spoken to.

pub mod model;

pub use model::KeyRange;
