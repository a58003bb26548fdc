// Package network tests how apps are reached: from outside, from their neighbours, over HTTP and TCP, by weight and label.
package network
