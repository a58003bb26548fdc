// Package external is a client of KEDA's external scalers: gRPC servers that tell whether there is work and how much.
// The protocol is externalscaler.proto of github.com/kedacore/keda (pkg/scalers/externalscaler).
//
// A scaler is somebody else's program, so nothing that it sends is trusted: each call has a deadline, messages have a
// size limit, every number is checked, and its texts are made safe to print.
package external
