//! Which losses change the embeddings and let another loss compute?
//!
//! A wrapper is a file of its own and one line in [`WRAPPERS`]. In a recipe it is a table under the loss,
//! `[loss.<key>]`.

mod active_dims;
pub mod adaptive_layer;
pub mod cached_splade;
pub mod csr;
pub mod matryoshka;
pub mod matryoshka_2d;
pub mod splade;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::flow::Card;
use crate::loss::Loss;
use crate::util::registry::{self, Named, Settings};

/// Settings that make a wrapper of a loss.
pub trait Wrap: Settings {
    /// The table's name under `[loss]`.
    const KEY: &'static str;
    /// The catalogue entry.
    const CARD: &'static Card;
    /// What it wraps where nothing is named.
    const USUAL: Option<&'static str> = None;

    /// The wrapper around `inner`.
    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss>;
}

type Build = fn(Box<dyn Loss>, &Map<String, Value>) -> Result<Box<dyn Loss>>;

/// What the registry keeps of a wrapper.
#[derive(Debug, Clone, Copy)]
pub struct Wrapper {
    /// The table's name under `[loss]`.
    pub key: &'static str,
    /// Its catalogue entry.
    pub card: &'static Card,
    /// What it wraps where nothing is named.
    pub usual: Option<&'static str>,
    /// The JSON schema of its settings.
    pub schema: fn() -> schemars::Schema,
    build: Build,
}

impl Wrapper {
    /// The entry of the wrapper whose settings are `T`.
    #[must_use]
    pub const fn new<T: Wrap>(card: &'static Card) -> Self {
        Self {
            key: T::KEY,
            card,
            usual: T::USUAL,
            schema: || schemars::schema_for!(T),
            build: |inner, settings| Ok(registry::read_settings::<T>(T::CARD.name, settings)?.around(inner)),
        }
    }

    /// The wrapper with `settings` around `inner`.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for settings it does not have or cannot use.
    pub fn wrap(&self, inner: Box<dyn Loss>, settings: &Map<String, Value>) -> Result<Box<dyn Loss>> {
        if inner.views().is_some() {
            let (loss, wrapper) = (inner.card().name, self.card.name);
            return Err(Error::usage(format!(
                "`{loss}` cannot be wrapped by {wrapper}: it does not compute on embeddings alone"
            ))
            .with_hint(format!("leave {wrapper} out")));
        }
        (self.build)(inner, settings)
    }
}

impl Named for Wrapper {
    fn name(&self) -> &'static str {
        self.card.name
    }
}

crate::registry! {
    /// Every wrapper, one line each; the first is the innermost when a recipe has several.
    pub static WRAPPERS: [Wrapper] = {
        matryoshka::Matryoshka,
        adaptive_layer::AdaptiveLayer,
        matryoshka_2d::Matryoshka2d,
        splade::Splade,
        cached_splade::CachedSplade,
        csr::Csr,
    }
}
