// Package e2e drives a server as Azure's own clients do. Its tests run against a server in their own process, with the
// fake runtime; or, when PENSTOCK_ENDPOINT is set, against the one there, with PENSTOCK_TOKEN and the file PENSTOCK_CA to
// reach it, as the command line has them, and PENSTOCK_IMAGE as the image of the app that they make.
package e2e
