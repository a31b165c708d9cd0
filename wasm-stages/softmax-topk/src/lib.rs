//! The scores of a classifier to its likeliest classes.

mod rank;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use rank::{Activation, likeliest};

/// The stage `softmax-topk`.
#[derive(Debug)]
pub struct SoftmaxTopk {
    k: usize,
    activation: Activation,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    k: usize,
    activation: Activation,
}

impl Default for Options {
    fn default() -> Self {
        Self { k: 5, activation: Activation::Auto }
    }
}

impl Stage for SoftmaxTopk {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Turns the scores of a classifier into probabilities and keeps the likeliest classes.",
        )
        .input(Port::new("tensor", Kind::Tensor, "one score for each class: [C], [1, C], [1, C, 1, 1]"))
        .output(Port::new("labels", Kind::Labels, "the likeliest classes, best first"))
        .options(json!({
            "k": {
                "type": "integer", "minimum": 1, "default": Options::default().k,
                "description": "how many classes are kept",
            },
            "activation": {
                "enum": ["auto", "softmax", "sigmoid", "none"], "default": "auto",
                "description": "what makes probabilities of the scores; auto: none if they are probabilities already \
                                (within 0 and 1, together 1), softmax otherwise",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { k, activation } = options;
        if k == 0 {
            return Err(Error::invalid_option("`k` is at least 1"));
        }
        Ok(Self { k, activation })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tensor = inputs.tensor("tensor")?;
        if tensor.shape.iter().filter(|d| **d != 1).count() > 1 {
            return Err(Error::invalid_input(format!(
                "the scores of one picture are needed, and shape {:?} holds more",
                tensor.shape
            ))
            .with_help("run the model with a batch of 1, and choose its classification output"));
        }
        let labels = likeliest(&tensor.into_f32()?, self.k, self.activation)?;
        Ok(Values::new().with("labels", labels))
    }
}

export_stage!(SoftmaxTopk);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Tensor, testing};

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<SoftmaxTopk>(Files::default());
        assert!(testing::create::<SoftmaxTopk>(&json!({"k": 0}), Files::default()).is_err());
    }

    #[test]
    fn a_batch_is_refused() {
        let stage: SoftmaxTopk = testing::create(&json!({"k": 1}), Files::default()).unwrap();
        let run = |shape: Vec<u64>| {
            let tensor = Tensor::f32(shape, vec![1.0, 2.0, 0.0, 0.0]).unwrap();
            stage.run(Values::new().with("tensor", tensor))
        };
        assert_eq!(run(vec![2, 2]).unwrap_err().code, "invalid-input");
        assert_eq!(run(vec![1, 4, 1, 1]).unwrap().labels("labels").unwrap()[0].class_id, 1);
    }
}
