//! What is applied to a reranker's logits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An activation by the name that its class has in `torch.nn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActivationFn {
    /// The logits as they are.
    Identity,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    ReLU,
}

impl std::str::FromStr for ActivationFn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::of_path(text).ok_or_else(|| "give Identity, Sigmoid, Tanh or ReLU".to_owned())
    }
}

impl ActivationFn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Sigmoid, Self::Tanh, Self::ReLU];

    /// The class's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Sigmoid => "Sigmoid",
            Self::Tanh => "Tanh",
            Self::ReLU => "ReLU",
        }
    }

    /// The activation of a class's name or Python path: `Sigmoid`, `torch.nn.modules.activation.Sigmoid`.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.rsplit('.').next()?;
        Self::ALL.into_iter().find(|activation| activation.name() == name)
    }

    /// The Python path that sentence-transformers writes and reads.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Identity => "torch.nn.modules.linear.Identity",
            Self::Sigmoid => "torch.nn.modules.activation.Sigmoid",
            Self::Tanh => "torch.nn.modules.activation.Tanh",
            Self::ReLU => "torch.nn.modules.activation.ReLU",
        }
    }

    /// Its value.
    #[must_use]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            // NaN stays what it is
            Self::ReLU if x < 0.0 => 0.0,
            Self::ReLU => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_lead_back() {
        for activation in ActivationFn::ALL {
            assert_eq!(ActivationFn::of_path(activation.path()), Some(activation));
            assert_eq!(ActivationFn::of_path(activation.name()), Some(activation));
        }
        assert_eq!(ActivationFn::of_path("my.module.Own"), None);
    }
}
