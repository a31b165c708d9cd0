//! Brings vectors to the length one.

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

/// The stage `l2-normalize`.
#[derive(Debug)]
pub struct L2Normalize {
    epsilon: f32,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    epsilon: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { epsilon: 1e-12 }
    }
}

impl Stage for L2Normalize {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Divides each vector of a tensor, which lies along its last side, by its Euclidean length, so that the dot product \
             of two is the cosine of the angle between them.",
        )
        .input(Port::new("tensor", Kind::Tensor, "vectors: [D], [N, D] or more sides"))
        .output(Port::new("tensor", Kind::Tensor, "the same shape, as f32"))
        .options(json!({
            "epsilon": {
                "type": "number", "minimum": 0, "default": Options::default().epsilon,
                "description": "the least length that a vector is divided by: a vector of zeros stays one",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        if !(options.epsilon >= 0.0 && options.epsilon.is_finite()) {
            let what = format!("`epsilon` is {}: it must not be negative", options.epsilon);
            return Err(Error::invalid_option(what));
        }
        Ok(Self { epsilon: options.epsilon })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tensor = inputs.tensor("tensor")?;
        let shape = tensor.shape.clone();
        let mut elements = tensor.into_f32()?;
        let side = shape.last().and_then(|side| usize::try_from(*side).ok()).unwrap_or(1).max(1);
        for vector in elements.chunks_exact_mut(side) {
            // In double precision: squares of large elements overflow, and small ones vanish.
            let square: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
            if !square.is_finite() {
                return Err(Error::invalid_input("a vector holds infinities, or what is not a number"));
            }
            let length = square.sqrt().max(f64::from(self.epsilon));
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        Ok(Values::new().with("tensor", Tensor::f32(shape, elements)?))
    }
}

export_stage!(L2Normalize);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    fn run(shape: Vec<u64>, elements: Vec<f32>) -> Result<Vec<f32>> {
        let stage: L2Normalize = testing::create(&json!({}), Files::default())?;
        stage.run(Values::new().with("tensor", Tensor::f32(shape, elements)?))?.tensor("tensor")?.into_f32()
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<L2Normalize>(Files::default());
        assert!(testing::create::<L2Normalize>(&json!({"epsilon": -1}), Files::default()).is_err());
    }

    #[test]
    fn each_vector_gets_the_length_one() {
        assert_eq!(run(vec![2, 2], vec![3.0, 4.0, 0.0, -2.0]), Ok(vec![0.6, 0.8, 0.0, -1.0]));
        assert_eq!(run(vec![3], vec![0.0; 3]), Ok(vec![0.0; 3]));
        assert_eq!(run(vec![2], vec![0.0, 4e30]), Ok(vec![0.0, 1.0]));
        assert_eq!(run(vec![], vec![5.0]), Ok(vec![1.0]));
        assert_eq!(run(vec![0, 4], vec![]), Ok(vec![]));
    }

    #[test]
    fn what_has_no_length_is_refused() {
        assert_eq!(run(vec![2], vec![1.0, f32::NAN]).unwrap_err().code, "invalid-input");
    }
}
