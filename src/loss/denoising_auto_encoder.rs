//! DenoisingAutoEncoderLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DecoderWanted, Loss, View};
use crate::error::{Error, Result};
use crate::flow::{Arrangement, Card, LabelKind, Labels, Outputs};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["single texts, which are damaged here", "(damaged text, original text) pairs"],
    columns: (1, 2),
    labels: LabelKind::None,
    gotchas: &[
        "A decoder is trained beside the model, and most of the time goes into its last layer, which has the size of the \
         vocabulary: batches of 8 and a learning rate of 3e-5 are usual.",
        "Made for `model.pooling_mode = \"cls\"` and a base model that is not trained for sentences yet; it needs many \
         texts, 10,000 and more.",
        "Only a BERT can be the decoder, and its width has to be that of the embeddings.",
    ],
    paper: "https://arxiv.org/abs/2104.06979",
    ..Card::new(
        "DenoisingAutoEncoderLoss",
        "A decoder writes the text again from the embedding of a damaged one (TSDAE); needs no labels.",
    )
};

/// TSDAE: the embedding of a damaged text has to hold what a decoder needs to write the original.
///
/// `loss = mean over all tokens t of all originals x, the first left out, of -log p(x_t | x_<t, e)`, where `e` is the
/// embedding of the damaged text and `p` a decoder with causal attention, which sees nothing of the damaged text but
/// `e`, by cross-attention, and the original up to the token it foretells. Its last layer has the weights of its word
/// embeddings. Padding counts nothing.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | single texts | none |
/// | (damaged text, original text) pairs | none |
///
/// Single texts are damaged here, anew in each epoch: each word is left out with a probability of `del_ratio`, one at
/// least stays. Words are what the tokenizer makes pieces of; a prompt and special tokens stay. Of a text that is cut at
/// `max_seq_length`, what is kept is damaged.
///
/// # Shapes
/// One embedding of `[batch, dim]`, with the decoder's width as `dim`; the result is a scalar.
///
/// # Defaults
/// `tie_encoder_decoder = true`: the decoder has the model's own weights, as in the paper, and only cross-attention and
/// the last layer's transform are new (or those of the base model's files, where they have any). `del_ratio = 0.6`, the
/// paper's best.
///
/// # Related
/// `ContrastiveTensionLossInBatchNegatives` and `MultipleNegativesRankingLoss` on the same column twice (SimCSE) need no
/// labels either, and are faster.
///
/// # Source
/// [Wang et al. 2021](https://arxiv.org/abs/2104.06979); `losses/denoising_auto_encoder.py` and
/// `datasets/denoising_auto_encoder.py` of sentence-transformers. Words are deleted among tokens, where the reference
/// deletes those of NLTK and reads the rest again.
///
/// # Recipe
/// ```toml
/// [model]
/// base = "bert-base-uncased"
/// pooling_mode = "cls"
/// [train_dataset]
/// path = "sentences.txt"
/// [loss]
/// name = "DenoisingAutoEncoderLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DenoisingAutoEncoderLoss {
    /// Without tying: the model that the decoder begins as, a directory or a model's id on the Hub.
    pub decoder_name_or_path: Option<String>,
    /// Whether model and decoder have the same weights.
    pub tie_encoder_decoder: bool,
    /// Of single texts: the probability that a word is left out.
    pub del_ratio: f64,
}

impl Default for DenoisingAutoEncoderLoss {
    fn default() -> Self {
        Self { decoder_name_or_path: None, tie_encoder_decoder: true, del_ratio: 0.6 }
    }
}

impl Settings for DenoisingAutoEncoderLoss {
    fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.del_ratio) {
            let text = format!("`del_ratio` must be between 0 and 1, got {}", self.del_ratio);
            return Err(Error::usage(text).with_hint("0.6 is the paper's: six of ten words are left out"));
        }
        if self.decoder_name_or_path.is_none() && !self.tie_encoder_decoder {
            return Err(Error::usage("`tie_encoder_decoder` is `false`, and `decoder_name_or_path` is missing")
                .with_hint("name the model that the decoder begins as, the base model for one"));
        }
        Ok(())
    }
}

/// The model sees damaged texts only.
const VIEWS: [View; 1] = [View { twin: false, column: 0 }];

impl Loss for DenoisingAutoEncoderLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn views(&self) -> Option<&[View]> {
        Some(&VIEWS)
    }

    fn decoder(&self) -> Option<DecoderWanted<'_>> {
        let other = self.decoder_name_or_path.as_deref().filter(|_| !self.tie_encoder_decoder);
        Some(DecoderWanted { column: 1, model: other })
    }

    fn arrangement(&self, columns: usize) -> Arrangement {
        if columns == 1 { Arrangement::Damaged { delete: self.del_ratio } } else { Arrangement::AsIs }
    }

    fn check_dim(&self, _: usize) -> Result<Vec<String>> {
        let useless = self.tie_encoder_decoder && self.decoder_name_or_path.is_some();
        let warning =
            "`loss.decoder_name_or_path` has no effect with `tie_encoder_decoder = true`: the decoder is the model";
        Ok(if useless { vec![warning.to_owned()] } else { Vec::new() })
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let missing = || Error::Internal(format!("`{}` computes without its decoder", CARD.name));
        outputs.decoded.clone().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_contradict_each_other_or_not() {
        let of = |model: Option<&str>, tied: bool| DenoisingAutoEncoderLoss {
            decoder_name_or_path: model.map(str::to_owned),
            tie_encoder_decoder: tied,
            ..DenoisingAutoEncoderLoss::default()
        };
        assert!(of(None, true).validate().is_ok() && of(Some("x"), false).validate().is_ok());
        assert!(of(Some("x"), true).check_dim(8).unwrap()[0].contains("no effect"));
        assert_eq!(of(Some("x"), true).decoder(), Some(DecoderWanted { column: 1, model: None }));
        assert_eq!(of(Some("x"), false).decoder().unwrap().model, Some("x"));
        assert!(of(None, false).validate().unwrap_err().to_string().contains("`decoder_name_or_path` is missing"));
        assert!(DenoisingAutoEncoderLoss { del_ratio: 1.5, ..of(None, true) }.validate().is_err());
        assert_eq!(of(None, true).arrangement(1), Arrangement::Damaged { delete: 0.6 });
        assert_eq!(of(None, true).arrangement(2), Arrangement::AsIs);
    }
}
