# Makes the small model files beside it: Debian 12's python3-torch 1.13.1 and python3-onnx 1.12.0.
import torch, onnx
from onnx import helper, TensorProto, numpy_helper

torch.manual_seed(0)
linear = torch.nn.Linear(3, 2)
state = dict(linear.state_dict())
state["half"] = torch.zeros(5, dtype=torch.bfloat16)
state["tied"] = state["half"]          # one storage, counted once
state["view"] = state["weight"][0]     # a part of one that is counted already
state["steps"] = torch.tensor(7)       # int64
torch.save({"state_dict": state, "epoch": 3, "note": "small"}, "checkpoint.pt")
torch.jit.script(linear).save("script.pt")

weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 3], [0.5] * 6)
scale = helper.make_tensor("scale", TensorProto.FLOAT16, [4], b"\0" * 8, raw=True)
names = helper.make_tensor("names", TensorProto.STRING, [2], [b"ko", b"en"])
node = helper.make_node("MatMul", ["x", "weight"], ["y"])
graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])], [weight, scale, names])
onnx.save(helper.make_model(graph), "matmul.onnx")

import pickle, zipfile, os
class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/penstock-was-here",))
with zipfile.ZipFile("evil.pt", "w") as z:
    z.writestr("archive/data.pkl", pickle.dumps({"w": Evil()}, protocol=2))
