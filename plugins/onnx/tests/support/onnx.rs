//! Writes small ONNX models: just enough protobuf to say what a test needs.

/// Element types by their ONNX number.
pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const STRING: i32 = 8;
pub const BOOL: i32 = 9;
pub const FLOAT16: i32 = 10;
pub const DOUBLE: i32 = 11;

/// A message under construction.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value > 0x7f {
            self.0.push(value as u8 & 0x7f | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// A number field.
    pub fn number(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value.cast_unsigned())
    }

    /// A field of bytes, text or a message.
    pub fn bytes(self, field: u64, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mut this = self.varint(field << 3 | 2).varint(content.len() as u64);
        this.0.extend_from_slice(content);
        this
    }

    pub fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, message.0)
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A dimension: a number, or a name for one that the caller chooses.
fn dim(text: &str) -> Message {
    match text.parse::<i64>() {
        Ok(n) => Message::default().number(1, n),
        Err(_) => Message::default().bytes(2, text),
    }
}

/// A `ValueInfoProto`; `shape` like `"batch,3"`, empty for a scalar, `None` for any rank.
pub fn value(name: &str, element: i32, shape: Option<&str>) -> Message {
    let mut tensor = Message::default().number(1, i64::from(element));
    if let Some(shape) = shape {
        let dims = shape.split(',').filter(|d| !d.is_empty());
        tensor = tensor.message(2, dims.fold(Message::default(), |m, d| m.message(1, dim(d))));
    }
    Message::default().bytes(1, name).message(2, Message::default().message(1, tensor))
}

/// A `TensorProto` with raw data.
pub fn tensor(name: &str, element: i32, dims: &[i64], raw: &[u8]) -> Message {
    let dims = dims.iter().fold(Message::default(), |m, d| m.number(1, *d));
    dims.number(2, i64::from(element)).bytes(8, name).bytes(9, raw)
}

/// A `NodeProto`.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let node = inputs.iter().fold(Message::default(), |m, i| m.bytes(1, i));
    outputs.iter().fold(node, |m, o| m.bytes(2, o)).bytes(4, operator)
}

/// An integer attribute, for field 5 of a node.
pub fn int_attribute(name: &str, value: i64) -> Message {
    Message::default().bytes(1, name).number(3, value).number(20, 2)
}

/// A graph under construction.
#[derive(Clone, Default)]
pub struct Graph(Message);

impl Graph {
    pub fn new(name: &str) -> Self {
        Self(Message::default().bytes(2, name))
    }

    pub fn node(self, node: Message) -> Self {
        Self(self.0.message(1, node))
    }

    pub fn initializer(self, tensor: Message) -> Self {
        Self(self.0.message(5, tensor))
    }

    pub fn input(self, value: Message) -> Self {
        Self(self.0.message(11, value))
    }

    pub fn output(self, value: Message) -> Self {
        Self(self.0.message(12, value))
    }

    /// The graph alone: a body of `Loop` or `If`.
    pub fn into_message(self) -> Message {
        self.0
    }

    /// The bytes of a model with this graph and this metadata.
    pub fn model(self, metadata: &[(&str, &str)]) -> Vec<u8> {
        self.model_of_opset(17, metadata)
    }

    /// The same for operators of another version.
    pub fn model_of_opset(self, opset: i64, metadata: &[(&str, &str)]) -> Vec<u8> {
        let model = Message::default().number(1, 8).bytes(2, "pajamas-tests").message(7, self.0);
        let model = model.message(8, Message::default().bytes(1, "").number(2, opset));
        let entry = |(k, v): &(&str, &str)| Message::default().bytes(1, k).bytes(2, v);
        metadata.iter().fold(model, |m, e| m.message(14, entry(e))).finish()
    }
}

/// A model that gives its input back.
pub fn identity(element: i32, shape: &str) -> Vec<u8> {
    Graph::new("identity")
        .input(value("x", element, Some(shape)))
        .node(node("Identity", &["x"], &["y"]))
        .output(value("y", element, Some(shape)))
        .model(&[])
}
