// Package pki makes and keeps what lets clients trust this server and the server trust its clients: a certificate
// authority of its own, the leaf certificates that it issues, the API token, and the key that secrets are sealed under.
//
//	dir/ca.pem, dir/ca.key          made at the first start, 10 years
//	dir/leaf-5f0c….pem              one a set of names, key and certificate; 1 year, made anew 30 days before its end
package pki
