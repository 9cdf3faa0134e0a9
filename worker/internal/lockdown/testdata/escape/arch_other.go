//go:build !amd64

package main

func archAttempts() map[string]func(params) error { return nil }
