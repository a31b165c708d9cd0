//! Makes one vector of the vectors that a model gives for the tokens of a text, or for the patches of a picture.

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

/// The stage `pool`.
#[derive(Debug)]
pub struct Pool {
    mode: Mode,
}

/// Which vector stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Their mean.
    Mean,
    /// The first.
    Cls,
    /// The last.
    Last,
    /// The largest of each element.
    Max,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    mode: Mode,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::Mean }
    }
}

impl Stage for Pool {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Makes one vector of the vectors that a model gives for the tokens of a text, as the sentence-transformers do.",
        )
        .input(Port::new("tensor", Kind::Tensor, "[N, T, D]"))
        .input(Port::optional(
            "attention_mask",
            Kind::Tensor,
            "[N, T], 0 for what only fills up and does not count; without it all count",
        ))
        .output(Port::new("tensor", Kind::Tensor, "[N, D], as f32"))
        .options(json!({
            "mode": {
                "enum": ["mean", "cls", "last", "max"], "default": "mean",
                "description": "mean: of all that count; cls: the first; last: the last that counts; max: the largest of each \
                                element",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        Ok(Self { mode: options.mode })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tensor = inputs.tensor("tensor")?;
        let &[texts, tokens, side] = tensor.shape.as_slice() else {
            return Err(Error::invalid_input(format!(
                "a tensor of the shape {:?}: [N, T, D] is needed",
                tensor.shape
            )));
        };
        let mask = match inputs.tensor_opt("attention_mask")? {
            Some(mask) if mask.shape != [texts, tokens] => {
                return Err(Error::invalid_input(format!(
                    "`attention_mask` is {:?}, and [{texts}, {tokens}] is needed",
                    mask.shape
                )));
            }
            Some(mask) => Some(mask.into_f32()?),
            None => None,
        };
        let elements = tensor.into_f32()?;
        // The tensor is in memory, so its sides fit into usize.
        let (length, width) = (tokens as usize, side as usize);
        let mut pooled = Vec::with_capacity(texts as usize * width);
        for text in 0..texts as usize {
            let vectors = &elements[text * length * width..][..length * width];
            let counts = |at: usize| mask.as_ref().is_none_or(|mask| mask[text * length + at] != 0.0);
            self.mode.pool(vectors, width, counts, &mut pooled);
        }
        Ok(Values::new().with("tensor", Tensor::f32(vec![texts, side], pooled)?))
    }
}

impl Mode {
    /// Appends the vector that stands for those that count; zeros when none does.
    fn pool(self, vectors: &[f32], width: usize, counts: impl Fn(usize) -> bool, pooled: &mut Vec<f32>) {
        let start = pooled.len();
        pooled.resize(start + width, 0.0);
        if width == 0 {
            return;
        }
        let into = &mut pooled[start..];
        let mut rows =
            vectors.chunks_exact(width).enumerate().filter(|(at, _)| counts(*at)).map(|(_, row)| row);
        match self {
            Self::Cls => rows.next().into_iter().for_each(|row| into.copy_from_slice(row)),
            Self::Last => rows.last().into_iter().for_each(|row| into.copy_from_slice(row)),
            Self::Max => {
                if let Some(first) = rows.next() {
                    into.copy_from_slice(first);
                }
                for row in rows {
                    into.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
                }
            }
            Self::Mean => {
                let mut count = 0.0;
                for row in rows {
                    count += 1.0;
                    into.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                if count > 0.0 {
                    into.iter_mut().for_each(|sum| *sum /= count);
                }
            }
        }
    }
}

export_stage!(Pool);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    fn run(mode: &str, mask: Option<Vec<f32>>) -> Result<Vec<f32>> {
        let stage: Pool = testing::create(&json!({ "mode": mode }), Files::default())?;
        let vectors = Tensor::f32(vec![2, 3, 2], (0..12).map(|n| n as f32).collect())?;
        let values = Values::new().with("tensor", vectors);
        let values = match mask {
            Some(mask) => values.with("attention_mask", Tensor::f32(vec![2, mask.len() as u64 / 2], mask)?),
            None => values,
        };
        stage.run(values)?.tensor("tensor")?.into_f32()
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<Pool>(Files::default());
    }

    #[test]
    fn what_fills_up_does_not_count() {
        let mask = || Some(vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(run("mean", None).unwrap(), [2.0, 3.0, 8.0, 9.0]);
        assert_eq!(run("mean", mask()).unwrap(), [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(run("cls", None).unwrap(), [0.0, 1.0, 6.0, 7.0]);
        assert_eq!(run("last", mask()).unwrap(), [2.0, 3.0, 0.0, 0.0]);
        assert_eq!(run("max", None).unwrap(), [4.0, 5.0, 10.0, 11.0]);
        let left = Some(vec![0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(run("cls", left).unwrap(), [2.0, 3.0, 6.0, 7.0], "filled up before the text");
    }

    #[test]
    fn shapes_that_do_not_belong_together_are_refused() {
        assert_eq!(run("mean", Some(vec![1.0; 4])).unwrap_err().code, "invalid-input");
        let stage: Pool = testing::create(&json!({}), Files::default()).unwrap();
        let flat = Values::new().with("tensor", Tensor::f32(vec![2, 2], vec![0.0; 4]).unwrap());
        assert_eq!(stage.run(flat).unwrap_err().code, "invalid-input");
        let none = Values::new().with("tensor", Tensor::f32(vec![1, 0, 2], vec![]).unwrap());
        assert_eq!(stage.run(none).unwrap().tensor("tensor").unwrap().into_f32(), Ok(vec![0.0, 0.0]));
    }
}
