// Program saml is a SAML 2.0 identity provider for tests: it knows one service
// provider and the people that it is told.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/crewjam/saml"
	"github.com/crewjam/saml/logger"
	"github.com/crewjam/saml/samlidp"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	listen := flag.String("listen", "", "host:port")
	entity := flag.String("entity", "", "entity id of the service provider")
	acs := flag.String("acs", "", "where it takes assertions")
	certFile := flag.String("cert", "", "where to write the certificate, PEM")
	people := flag.String("people", "", "JSON list of {Email, Groups}")
	password := flag.String("password", "", "everybody's")
	flag.Parse()
	if err := run(*listen, *entity, *acs, *certFile, *people, *password); err != nil {
		log.Fatal(err)
	}
}

func run(listen, entity, acs, certFile, people, password string) error {
	key, cert, err := identity()
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := os.WriteFile(certFile, block, 0o600); err != nil {
		return err
	}
	store := &samlidp.MemoryStore{}
	if err := fill(store, people, password); err != nil {
		return err
	}
	base, err := url.Parse("http://" + listen)
	if err != nil {
		return err
	}
	srv, err := samlidp.New(samlidp.Options{URL: *base, Key: key, Certificate: cert, Store: store, Logger: logger.DefaultLogger})
	if err != nil {
		return err
	}
	srv.IDP.ServiceProviderProvider = one{entity, acs}
	srv.IDP.LoginURL = srv.IDP.SSOURL // the form goes on with the sign-in that it interrupted
	return http.ListenAndServe(listen, srv)
}

func identity() (*rsa.PrivateKey, *x509.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "saml for tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return key, cert, err
}

func fill(store samlidp.Store, people, password string) error {
	var list []struct {
		Email  string
		Groups []string
	}
	if err := json.Unmarshal([]byte(people), &list); err != nil {
		return fmt.Errorf("people: %w", err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	for _, p := range list {
		u := samlidp.User{Name: p.Email, HashedPassword: hash, Groups: p.Groups, Email: p.Email, CommonName: p.Email}
		if err := store.Put("/users/"+p.Email, u); err != nil {
			return err
		}
	}
	return nil
}

// one knows one service provider.
type one struct{ entity, acs string }

func (o one) GetServiceProvider(_ *http.Request, id string) (*saml.EntityDescriptor, error) {
	if id != o.entity {
		return nil, os.ErrNotExist
	}
	return &saml.EntityDescriptor{
		EntityID: o.entity,
		SPSSODescriptors: []saml.SPSSODescriptor{{
			AssertionConsumerServices: []saml.IndexedEndpoint{{Binding: saml.HTTPPostBinding, Location: o.acs, Index: 1}},
		}},
	}, nil
}
