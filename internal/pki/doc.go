// Package pki creates and stores the server's keys and certificates: its certificate authority, the leaf certificates that
// the authority issues, the API token, and the key that encrypts secrets.
//
//	dir/ca.pem, dir/ca.key          made at the first start, 10 years
//	dir/leaf-5f0c….pem              one per set of names, key and certificate; 1 year, renewed 30 days before its end
package pki
