// Command terraform-provider-bulkhead is the provider that OpenTofu and Terraform
// start: the admin API as resources. It speaks to the admin port only and runs as
// whoever runs OpenTofu.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/terraform"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
)

var version = "dev" // set by the linker

func main() {
	debug := flag.Bool("debug", false, "wait for a debugger and print how OpenTofu reaches this process")
	flag.Parse()
	err := providerserver.Serve(context.Background(),
		func() provider.Provider { return terraform.New(terraform.Config{Version: version}) },
		providerserver.ServeOpts{Address: terraform.Address, Debug: *debug})
	if err != nil {
		log.Fatal(err)
	}
}
