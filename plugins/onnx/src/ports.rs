//! A model's inputs and outputs: what it declares, what a request brings, and whether the two fit.

use std::collections::{BTreeMap, HashMap};

use pajamas_plugin_api::{
    DType, Dim, NamedTensor, PluginError, Result, Signature, TensorSpec, TensorView, capability,
};

use crate::element;
use crate::error::DTYPE_UNSUPPORTED;
use crate::model::{Declared, Kind, UNNAMED};

/// How a shape of which not even the rank is known appears in a signature.
const ANY_RANK: &str = "...";

/// One input or output that an engine can serve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// `None` for any rank.
    pub(crate) shape: Option<Vec<Dim>>,
}

/// All inputs and outputs of a loaded model that its engine can serve.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Outputs the engine cannot give, with the reason.
    pub(crate) omitted: Vec<(String, String)>,
    engine: &'static str,
}

impl Ports {
    /// What `engine`, which takes and gives tensors of `dtypes`, can serve of a model.
    ///
    /// # Errors
    /// `dtype-unsupported` when an input, or every output, is out of reach. A single output that is gets listed
    /// in `omitted`: the model is useful without it.
    pub(crate) fn new(
        engine: &'static str,
        dtypes: &[DType],
        inputs: &[Declared],
        outputs: &[Declared],
    ) -> Result<Self> {
        let port = |declared: &Declared| match servable(dtypes, declared.kind) {
            Ok(dtype) => Ok(Port { name: declared.name.clone(), dtype, shape: declared.shape.clone() }),
            Err(why) => Err((declared.name.clone(), why)),
        };
        let refuse = |what: &str, (name, why): &(String, String)| {
            let supported = dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
            PluginError::new(DTYPE_UNSUPPORTED, format!("{what} `{name}` {why}; {engine} serves {supported}"))
                .help("export the model with one of these types, or add a Cast at that input or output")
        };
        let inputs = inputs
            .iter()
            .map(|input| port(input).map_err(|unserved| refuse("input", &unserved)))
            .collect::<Result<_>>()?;
        let (served, omitted): (Vec<_>, Vec<_>) = outputs.iter().map(port).partition(Result::is_ok);
        let outputs: Vec<Port> = served.into_iter().flatten().collect();
        let omitted: Vec<_> = omitted.into_iter().filter_map(Result::err).collect();
        if let (true, Some(first)) = (outputs.is_empty(), omitted.first()) {
            return Err(refuse("output", first));
        }
        Ok(Self { inputs, outputs, omitted, engine })
    }

    /// The signature that callers see.
    pub(crate) fn signature(&self, metadata: BTreeMap<String, String>) -> Signature {
        Signature {
            capabilities: vec![capability::INFER.to_owned()],
            inputs: self.inputs.iter().map(spec).collect(),
            outputs: self.outputs.iter().map(spec).collect(),
            text: None,
            metadata,
        }
    }

    /// The request's tensors in the order of the model's inputs, each checked for name, type, rank and every fixed
    /// dimension.
    ///
    /// # Errors
    /// `invalid-input`, naming the input, what was expected and what was given.
    pub(crate) fn bind<'a>(&self, tensors: &[NamedTensor<'a>]) -> Result<Vec<TensorView<'a>>> {
        let mut given: HashMap<&str, TensorView<'a>> = HashMap::with_capacity(tensors.len());
        for NamedTensor { name, tensor } in tensors {
            if !self.inputs.iter().any(|input| input.name == *name) {
                return Err(PluginError::invalid_input(format!("the model has no input `{name}`"))
                    .help(format!("its inputs are {}", list(&self.inputs))));
            }
            if given.insert(name, *tensor).is_some() {
                return Err(PluginError::invalid_input(format!("input `{name}` was given twice")));
            }
        }
        self.inputs
            .iter()
            .map(|input| match given.get(input.name.as_str()) {
                Some(tensor) => check(input, tensor).map(|()| *tensor),
                None => Err(PluginError::invalid_input(format!("input {} is missing", describe(input)))
                    .help(format!("the model's inputs are {}", list(&self.inputs)))),
            })
            .collect()
    }

    /// Indices of the wanted outputs, in the order asked for; all of them when `names` is empty.
    ///
    /// # Errors
    /// `invalid-input` for a name that the model does not have, `dtype-unsupported` for one it cannot give.
    pub(crate) fn select(&self, names: &[String]) -> Result<Vec<usize>> {
        if names.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let mut wanted = Vec::with_capacity(names.len());
        for name in names {
            let Some(index) = self.outputs.iter().position(|output| output.name == *name) else {
                return Err(match self.omitted.iter().find(|(omitted, _)| omitted == name) {
                    Some((_, why)) => PluginError::new(
                        DTYPE_UNSUPPORTED,
                        format!("output `{name}` {why}: {} cannot give it", self.engine),
                    ),
                    None => PluginError::invalid_input(format!("the model has no output `{name}`"))
                        .help(format!("its outputs are {}", list(&self.outputs))),
                });
            };
            if !wanted.contains(&index) {
                wanted.push(index);
            }
        }
        Ok(wanted)
    }

    /// The shape of an output before the run, when the model promises one: every dimension is fixed, or has the
    /// name of an input's dimension. `inputs` are in the order of [`bind`](Self::bind).
    pub(crate) fn promised_shape(&self, output: usize, inputs: &[TensorView<'_>]) -> Option<Vec<u64>> {
        let shape = self.outputs.get(output)?.shape.as_ref()?;
        shape
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(n) => Some(*n),
                Dim::Dynamic(name) => self.dimension(name, inputs),
            })
            .collect()
    }

    /// The size of a named dimension, when the inputs agree on it.
    fn dimension(&self, name: &str, inputs: &[TensorView<'_>]) -> Option<u64> {
        let mut sizes = self.inputs.iter().zip(inputs).flat_map(|(port, tensor)| {
            let dims = port.shape.as_deref().unwrap_or_default().iter().zip(tensor.shape());
            dims.filter(|(dim, _)| matches!(dim, Dim::Dynamic(n) if n == name && n != UNNAMED))
                .map(|(_, size)| *size)
        });
        let first = sizes.next()?;
        sizes.all(|size| size == first).then_some(first)
    }
}

fn servable(dtypes: &[DType], kind: Kind) -> Result<DType, String> {
    match kind {
        Kind::Other(what) => Err(format!("is a {what}, not a tensor")),
        Kind::Tensor(0) => Err("has no element type".to_owned()),
        Kind::Tensor(number) => element::dtype(number)
            .filter(|dtype| dtypes.contains(dtype))
            .ok_or_else(|| format!("holds {}", element::name(number))),
    }
}

fn check(input: &Port, tensor: &TensorView<'_>) -> Result<()> {
    let wrong = |what: String| {
        PluginError::invalid_input(format!(
            "input {}: {what}; given was {} {:?}",
            describe(input),
            tensor.dtype(),
            tensor.shape()
        ))
    };
    if tensor.dtype() != input.dtype {
        return Err(wrong(format!("its type must be {}", input.dtype)));
    }
    let Some(shape) = &input.shape else { return Ok(()) };
    if shape.len() != tensor.shape().len() {
        return Err(wrong(format!("it must have {} dimensions", shape.len())));
    }
    for (axis, (dim, given)) in shape.iter().zip(tensor.shape()).enumerate() {
        if let Dim::Fixed(n) = dim
            && n != given
        {
            return Err(wrong(format!("dimension {axis} must be {n}")));
        }
    }
    Ok(())
}

fn spec(port: &Port) -> TensorSpec {
    let any_rank = || vec![Dim::Dynamic(ANY_RANK.to_owned())];
    TensorSpec {
        name: port.name.clone(),
        dtype: port.dtype,
        shape: port.shape.clone().unwrap_or_else(any_rank),
    }
}

/// A port in a message: `` `images` (f32 [batch, 3, 640, 640]) ``.
fn describe(port: &Port) -> String {
    let dims: Vec<String> = spec(port)
        .shape
        .into_iter()
        .map(|dim| match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Dynamic(name) => name,
        })
        .collect();
    format!("`{}` ({} [{}])", port.name, port.dtype, dims.join(", "))
}

fn list(ports: &[Port]) -> String {
    ports.iter().map(describe).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::codes;

    use super::*;

    fn declared(name: &str, kind: Kind, shape: Option<&[&str]>) -> Declared {
        let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Dynamic((*d).to_owned()), Dim::Fixed);
        Declared { name: name.into(), kind, shape: shape.map(|s| s.iter().map(dim).collect()) }
    }

    fn ports() -> Ports {
        Ports::new(
            "test",
            &[DType::F32, DType::I64],
            &[declared("x", Kind::Tensor(1), Some(&["n", "3"])), declared("any", Kind::Tensor(7), None)],
            &[
                declared("y", Kind::Tensor(1), Some(&["n", "7"])),
                declared("z", Kind::Tensor(1), Some(&["m"])),
                declared("words", Kind::Tensor(8), Some(&["n"])),
                declared("u", Kind::Tensor(1), Some(&[UNNAMED])),
            ],
        )
        .unwrap()
    }

    #[test]
    fn what_an_engine_cannot_give_is_left_out_and_said() {
        let ports = ports();
        assert_eq!(ports.omitted, [("words".to_owned(), "holds string".to_owned())]);
        let error = ports.select(&["words".into()]).unwrap_err();
        assert_eq!(error.code, DTYPE_UNSUPPORTED);
        let error = ports.select(&["nope".into()]).unwrap_err();
        assert_eq!(error.code, codes::INVALID_INPUT);
        assert!(error.help.contains("`y` (f32 [n, 7])"), "{error}");
        assert_eq!(ports.select(&["z".into(), "y".into(), "z".into()]).unwrap(), [1, 0]);
    }

    #[test]
    fn an_input_that_cannot_be_taken_refuses_the_model() {
        let double = [declared("d", Kind::Tensor(11), None)];
        let out = [declared("y", Kind::Tensor(1), None)];
        let error = Ports::new("rten", &[DType::F32], &double, &out).unwrap_err();
        assert_eq!(error.code, DTYPE_UNSUPPORTED);
        assert!(error.message.contains("input `d` holds double; rten serves f32"), "{error}");
        let none = [declared("s", Kind::Other("sequence"), None)];
        assert_eq!(Ports::new("rten", &[DType::F32], &[], &none).unwrap_err().code, DTYPE_UNSUPPORTED);
    }

    #[test]
    fn wrong_inputs_are_named() {
        let ports = ports();
        let bytes = [0u8; 64];
        let any = NamedTensor { name: "any", tensor: TensorView::new(DType::I64, &[], &bytes[..8]).unwrap() };
        let x = |dtype: DType, shape: &'static [u64], n| NamedTensor {
            name: "x",
            tensor: TensorView::new(dtype, shape, &bytes[..n]).unwrap(),
        };
        let message = |tensors: &[NamedTensor<'_>]| {
            let error = ports.bind(tensors).unwrap_err();
            assert_eq!(error.code, codes::INVALID_INPUT);
            error.message
        };
        assert_eq!(
            message(&[x(DType::I64, &[1, 3], 24), any]),
            "input `x` (f32 [n, 3]): its type must be f32; given was i64 [1, 3]"
        );
        assert!(message(&[x(DType::F32, &[3], 12), any]).contains("must have 2 dimensions"));
        assert!(message(&[x(DType::F32, &[1, 4], 16), any]).contains("dimension 1 must be 3"));
        assert!(message(&[x(DType::F32, &[1, 3], 12)]).contains("`any` (i64 [...]) is missing"));
        assert!(message(&[any, any]).contains("given twice"));
        let stranger = NamedTensor { name: "q", ..any };
        assert!(message(&[stranger]).contains("no input `q`"));
        let bound = ports.bind(&[any, x(DType::F32, &[2, 3], 24)]).unwrap();
        assert_eq!(bound[0].shape(), [2, 3]);
    }

    #[test]
    fn shapes_are_promised_by_name() {
        let ports = ports();
        let bytes = [0u8; 64];
        let x = TensorView::new(DType::F32, &[2, 3], &bytes[..24]).unwrap();
        let any = TensorView::new(DType::I64, &[], &bytes[..8]).unwrap();
        assert_eq!(ports.promised_shape(0, &[x, any]), Some(vec![2, 7]));
        assert_eq!(ports.promised_shape(1, &[x, any]), None);
        assert_eq!(ports.promised_shape(2, &[x, any]), None);
    }
}
