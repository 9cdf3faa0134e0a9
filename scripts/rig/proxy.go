package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// runProxy is the bare Go reverse proxy that Bulkhead's cost is held against:
// no authentication, no limits, no log.
func runProxy(addr, to string) error {
	target, err := url.Parse(to)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // clients hang up on purpose
		Transport:     &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true},
	}
	return http.ListenAndServe(addr, proxy)
}
