module penstock/examples/vad

go 1.26.6

require github.com/yalue/onnxruntime_go v1.27.0
