"""The smallest programs that load a release's model and run it once, by backend: what lies beside it on the device."""

from __future__ import annotations

_PYTHON = {
    "tflite": """\
# Loads the model beside it and runs it once on zeros: python3 example.py
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter  # or: from tflite_runtime.interpreter import Interpreter
model = Interpreter(model_path=str(Path(__file__).with_name("model.tflite")), num_threads=COUNT_OF_THREADS)
model.allocate_tensors()
source, sink = model.get_input_details()[0], model.get_output_details()[0]  # shape, dtype, quantization
model.set_tensor(source["index"], np.zeros(source["shape"], source["dtype"]))
model.invoke()
print(model.get_tensor(sink["index"]))
""",
    "onnxruntime": """\
# Loads the model beside it and runs it once on zeros: python3 example.py
from pathlib import Path
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = COUNT_OF_THREADS
model = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), options)
source = model.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in source.shape]
print(model.run(None, {source.name: np.zeros(shape, np.float32)})[0])
""",
    "openvino": """\
# Loads the model beside it and runs it once on zeros: python3 example.py
from pathlib import Path
import numpy as np
import openvino
core = openvino.Core()
options = {"INFERENCE_NUM_THREADS": COUNT_OF_THREADS}
model = core.compile_model(str(Path(__file__).with_name("model.xml")), "CPU", options)
shape = [1 if size.is_dynamic else size.get_length() for size in model.input(0).get_partial_shape()]
print(model(np.zeros(shape, np.float32))[0])
""",
}
_CPP = {
    "tflite": """\
// Loads model.tflite and runs it once on zeros; link with TensorFlow Lite (LiteRT).
#include <cstring>
#include "tensorflow/lite/core/kernels/register.h"
#include "tensorflow/lite/interpreter_builder.h"
int main() {
  auto file = tflite::FlatBufferModel::BuildFromFile("model.tflite");
  std::unique_ptr<tflite::Interpreter> model;
  tflite::InterpreterBuilder(*file, tflite::ops::builtin::BuiltinOpResolver())(&model, COUNT_OF_THREADS);
  if (!model || model->AllocateTensors() != kTfLiteOk) return 1;
  std::memset(model->input_tensor(0)->data.raw, 0, model->input_tensor(0)->bytes);
  return model->Invoke() == kTfLiteOk ? 0 : 1;  // then read model->output_tensor(0)
}
""",
    "onnxruntime": """\
// Loads model.onnx and runs it once on zeros; link with onnxruntime.
#include <onnxruntime_cxx_api.h>
int main() {
  Ort::Env environment;
  Ort::Session model(environment, "model.onnx", Ort::SessionOptions().SetIntraOpNumThreads(COUNT_OF_THREADS));
  Ort::AllocatorWithDefaultOptions memory;
  auto shape = model.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  for (auto& size : shape) size = size > 0 ? size : 1;
  auto input = Ort::Value::CreateTensor<float>(memory, shape.data(), shape.size());
  std::fill_n(input.GetTensorMutableData<float>(), input.GetTensorTypeAndShapeInfo().GetElementCount(), 0.0f);
  auto source = model.GetInputNameAllocated(0, memory), sink = model.GetOutputNameAllocated(0, memory);
  const char *from = source.get(), *to = sink.get();
  model.Run({}, &from, &input, 1, &to, 1);  // gives the outputs
}
""",
    "openvino": """\
// Loads model.xml with model.bin and runs it once on zeros; link with openvino.
#include <openvino/openvino.hpp>
int main() {
  ov::Core core;
  auto model = core.compile_model("model.xml", "CPU", ov::inference_num_threads(COUNT_OF_THREADS));
  auto request = model.create_infer_request();
  ov::Tensor input(model.input().get_element_type(), model.input().get_partial_shape().get_min_shape());
  std::memset(input.data(), 0, input.get_byte_size());
  request.set_input_tensor(input);
  request.infer();  // then read request.get_output_tensor()
}
""",
}


def examples(backend: str, threads: int) -> dict[str, str]:
    """The examples' texts by file name."""
    return {
        "example.py": _PYTHON[backend].replace("COUNT_OF_THREADS", str(threads)),
        "example.cpp": _CPP[backend].replace("COUNT_OF_THREADS", str(threads)),
    }
