//! Requests and tensors compared with what a description promises: one check for backends, hosts and the
//! conformance kit.

use crate::{
    BackendInfo, DType, Dim, InferRequest, LoadRequest, NamedTensor, PluginError, Probe, Result, Signature,
    TensorSpec, codes,
};

impl LoadRequest {
    /// Checks that the backend knows the format, the device and the names of the options. Values of options
    /// are the backend's own business.
    ///
    /// # Errors
    /// `model-invalid` for the format, `invalid-option` for the device or an option.
    pub fn check(&self, info: &BackendInfo, probe: &Probe) -> Result<()> {
        if !info.formats.contains(&self.format) {
            return Err(PluginError::new(
                codes::MODEL_INVALID,
                format!("the backend `{}` does not load models of the format `{}`", info.id, self.format),
            )
            .help(format!("it loads {}", info.formats.join(", "))));
        }
        if !self.device.is_empty() && !probe.devices.iter().any(|d| d.id == self.device) {
            let devices: Vec<&str> = probe.devices.iter().map(|d| d.id.as_str()).collect();
            return Err(PluginError::new(
                codes::INVALID_OPTION,
                format!("the backend `{}` has no device `{}` here", info.id, self.device),
            )
            .help(format!("its devices are: {}", devices.join(", "))));
        }
        let options = match &self.options {
            serde_json::Value::Null => return Ok(()),
            serde_json::Value::Object(options) => options,
            other => {
                let message = format!("the options of `{}` must be an object, not {other}", info.id);
                return Err(PluginError::new(codes::INVALID_OPTION, message));
            }
        };
        let known = info.options_schema["properties"].as_object();
        match options.keys().find(|name| !known.is_some_and(|k| k.contains_key(*name))) {
            None => Ok(()),
            Some(name) => {
                let known =
                    known.map(|k| k.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
                let known = if known.is_empty() { "it has none".into() } else { format!("it has: {known}") };
                let message = format!("the backend `{}` has no option `{name}`", info.id);
                Err(PluginError::new(codes::INVALID_OPTION, message).help(known))
            }
        }
    }
}

impl Signature {
    /// Checks the inputs as [`check_inputs`](Signature::check_inputs) does, and that the model has the outputs
    /// that are asked for.
    ///
    /// # Errors
    /// `invalid-input`.
    pub fn check_request(&self, request: &InferRequest, inputs: &[NamedTensor<'_>]) -> Result<()> {
        if let Some(name) = request.outputs.iter().find(|name| self.outputs.iter().all(|o| o.name != **name))
        {
            let known: Vec<&str> = self.outputs.iter().map(|o| o.name.as_str()).collect();
            return Err(PluginError::invalid_input(format!("the model has no output `{name}`"))
                .help(format!("its outputs are: {}", known.join(", "))));
        }
        self.check_inputs(inputs)
    }

    /// Checks that `inputs` are the ones the model takes, each once, with the right type and shape. Dimensions
    /// of one name must agree.
    ///
    /// # Errors
    /// `invalid-input`, naming the input, what was expected and what was given.
    pub fn check_inputs(&self, inputs: &[NamedTensor<'_>]) -> Result<()> {
        let known = || self.inputs.iter().map(|i| format!("`{}`", i.name)).collect::<Vec<_>>().join(", ");
        for (index, input) in inputs.iter().enumerate() {
            if inputs[..index].iter().any(|earlier| earlier.name == input.name) {
                return Err(PluginError::invalid_input(format!("input `{}` is given twice", input.name)));
            }
            if !self.inputs.iter().any(|spec| spec.name == input.name) {
                return Err(PluginError::invalid_input(format!("the model has no input `{}`", input.name))
                    .help(format!("its inputs are {}", known())));
            }
        }
        let mut dynamic = Vec::new();
        for spec in &self.inputs {
            let Some(input) = inputs.iter().find(|i| i.name == spec.name) else {
                return Err(PluginError::invalid_input(format!("input `{}` is missing", spec.name))
                    .help(format!("the model's inputs are {}", known())));
            };
            let (dtype, shape) = (input.tensor.dtype(), input.tensor.shape());
            if !spec.fits(dtype, shape) {
                let expected = spec.describe();
                return Err(PluginError::invalid_input(format!(
                    "input `{}` is {dtype} {shape:?}; {expected} is expected",
                    spec.name
                )));
            }
            for (dim, size) in spec.shape.iter().zip(shape) {
                let Dim::Dynamic(name) = dim else { continue };
                match dynamic.iter().find(|(n, _, _)| n == &name) {
                    // The empty name stands for "unknown", each time another.
                    Some((_, first, other)) if first != &size && !name.is_empty() => {
                        return Err(PluginError::invalid_input(format!(
                            "dimension `{name}` is {first} in input `{other}` and {size} in input `{}`",
                            spec.name
                        )));
                    }
                    Some(_) => {}
                    None => dynamic.push((name, size, spec.name.as_str())),
                }
            }
        }
        Ok(())
    }

    /// Checks what a session has written: all outputs asked for, no others, each with the type and the fixed
    /// dimensions that the signature promises.
    ///
    /// # Errors
    /// `output-missing`, `output-unexpected` and `output-mismatch`: faults of the backend, or of a model whose
    /// description is wrong.
    pub fn check_outputs<'o>(
        &self,
        request: &InferRequest,
        written: impl IntoIterator<Item = (&'o str, DType, &'o [u64])>,
    ) -> Result<()> {
        let wanted = |name: &str| request.outputs.is_empty() || request.outputs.iter().any(|o| o == name);
        let mut missing: Vec<&TensorSpec> = self.outputs.iter().filter(|spec| wanted(&spec.name)).collect();
        for (name, dtype, shape) in written {
            let Some(at) = missing.iter().position(|spec| spec.name == name) else {
                return Err(PluginError::new(
                    codes::OUTPUT_UNEXPECTED,
                    format!("the session wrote an output `{name}` that nobody asked for"),
                ));
            };
            let spec = missing.swap_remove(at);
            if !spec.fits(dtype, shape) {
                let expected = spec.describe();
                return Err(PluginError::new(
                    codes::OUTPUT_MISMATCH,
                    format!("the session wrote `{name}` as {dtype} {shape:?}; the model says {expected}"),
                ));
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(spec) => Err(PluginError::new(
                codes::OUTPUT_MISSING,
                format!("the session returned without writing `{}`", spec.name),
            )),
        }
    }
}

impl TensorSpec {
    /// Whether a tensor of this type and shape is one of these.
    pub fn fits(&self, dtype: DType, shape: &[u64]) -> bool {
        let fits = |(dim, size): (&Dim, &u64)| match dim {
            Dim::Fixed(expected) => expected == size,
            Dim::Dynamic(_) => true,
        };
        self.dtype == dtype && self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    /// Type and shape in words, for example `f32 [batch, 3, 640, 640]`.
    pub fn describe(&self) -> String {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => size.to_string(),
                Dim::Dynamic(name) if name.is_empty() => "?".into(),
                Dim::Dynamic(name) => name.clone(),
            })
            .collect();
        format!("{} [{}]", self.dtype, dims.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceInfo, TensorView};

    fn spec(name: &str, shape: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.to_vec() }
    }

    fn signature() -> Signature {
        let n = || Dim::Dynamic("n".into());
        Signature {
            inputs: vec![spec("a", &[n(), Dim::Fixed(2)]), spec("b", &[n()])],
            outputs: vec![spec("y", &[n(), Dim::Fixed(3)]), spec("z", &[])],
            ..Signature::default()
        }
    }

    fn input<'a>(name: &'a str, dtype: DType, shape: &'a [u64], bytes: &'a [u8]) -> NamedTensor<'a> {
        NamedTensor { name, tensor: TensorView::new(dtype, shape, bytes).unwrap() }
    }

    #[test]
    fn each_wrong_input_is_named() {
        let (a, b) = (input("a", DType::F32, &[1, 2], &[0; 8]), input("b", DType::F32, &[1], &[0; 4]));
        signature().check_inputs(&[b, a]).unwrap();
        for (inputs, words) in [
            (vec![a], "input `b` is missing"),
            (vec![a, b, input("c", DType::F32, &[1], &[0; 4])], "no input `c`"),
            (vec![a, a, b], "`a` is given twice"),
            (vec![a, input("b", DType::I32, &[1], &[0; 4])], "`b` is i32 [1]; f32 [n] is expected"),
            (vec![a, input("b", DType::F32, &[1, 1], &[0; 4])], "`b` is f32 [1, 1]"),
            (vec![input("a", DType::F32, &[1, 1], &[0; 4]), b], "f32 [n, 2] is expected"),
            (
                vec![a, input("b", DType::F32, &[2], &[0; 8])],
                "dimension `n` is 1 in input `a` and 2 in input `b`",
            ),
        ] {
            let error = signature().check_inputs(&inputs).unwrap_err();
            assert_eq!(error.code, "invalid-input");
            assert!(error.message.contains(words), "{error} lacks {words:?}");
        }
    }

    #[test]
    fn asking_for_an_unknown_output_is_refused() {
        let (a, b) = (input("a", DType::F32, &[1, 2], &[0; 8]), input("b", DType::F32, &[1], &[0; 4]));
        let ask =
            |name: &str| signature().check_request(&InferRequest { outputs: vec![name.into()] }, &[a, b]);
        ask("z").unwrap();
        assert_eq!(ask("w").unwrap_err().code, "invalid-input");
    }

    #[test]
    fn a_load_request_is_checked_against_format_device_and_options() {
        let info = BackendInfo {
            id: "b".into(),
            description: String::new(),
            formats: vec!["f".into()],
            precisions: vec![],
            device_kinds: vec![],
            capabilities: vec![],
            options_schema: serde_json::json!({"type": "object", "properties": {"threads": {}}}),
        };
        let cpu = DeviceInfo { id: "cpu".into(), name: String::new(), memory_total: 0, memory_free: 0 };
        let probe = Probe { score: 1, reason: String::new(), devices: vec![cpu] };
        let check = |format: &str, device: &str, options: serde_json::Value| {
            let (format, device) = (format.into(), device.into());
            LoadRequest { path: "m".into(), format, device, options }.check(&info, &probe)
        };
        check("f", "", serde_json::Value::Null).unwrap();
        check("f", "cpu", serde_json::json!({"threads": 2})).unwrap();
        for (format, device, options, code, words) in [
            ("g", "", serde_json::json!({}), "model-invalid", "it loads f"),
            ("f", "cuda:0", serde_json::json!({}), "invalid-option", "its devices are: cpu"),
            ("f", "", serde_json::json!({"thread": 2}), "invalid-option", "it has: threads"),
            ("f", "", serde_json::json!([]), "invalid-option", "must be an object"),
        ] {
            let error = check(format, device, options).unwrap_err();
            assert_eq!(error.code, code);
            assert!(error.to_string().contains(words), "{error} lacks {words:?}");
        }
    }

    #[test]
    fn each_wrong_output_has_its_code() {
        let (y, z) = (("y", DType::F32, &[5, 3][..]), ("z", DType::F32, &[][..]));
        let all = InferRequest::default();
        signature().check_outputs(&all, [z, y]).unwrap();
        signature().check_outputs(&InferRequest { outputs: vec!["z".into()] }, [z]).unwrap();
        for (written, code) in [
            (vec![y], "output-missing"),
            (vec![y, z, y], "output-unexpected"),
            (vec![y, z, ("w", DType::F32, &[][..])], "output-unexpected"),
            (vec![("y", DType::F32, &[5, 4][..]), z], "output-mismatch"),
            (vec![("y", DType::F16, &[5, 3][..]), z], "output-mismatch"),
        ] {
            assert_eq!(signature().check_outputs(&all, written).unwrap_err().code, code);
        }
    }
}
