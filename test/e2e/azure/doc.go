// Package azure drives a server with Azure's own client libraries. Its tests run against a server in their own process,
// with the fake runtime; or, when PENSTOCK_ENDPOINT is set, against the server there, with PENSTOCK_TOKEN and the file
// PENSTOCK_CA to reach it, as the command line has them, and PENSTOCK_IMAGE as the image of the app that they make.
package azure
