package app

import (
	"cmp"
	"strings"
	"unicode"
)

// regions are the display names of Azure's public regions. A location is only a label here. Azure answers with the display
// name for every spelling that it was given, so Penstock does too.
var regions = []string{
	"Australia Central", "Australia Central 2", "Australia East", "Australia Southeast", "Austria East", "Belgium Central",
	"Brazil South", "Brazil Southeast", "Canada Central", "Canada East", "Central India", "Central US", "Chile Central",
	"East Asia", "East US", "East US 2", "France Central", "France South", "Germany North", "Germany West Central",
	"Indonesia Central", "Israel Central", "Italy North", "Japan East", "Japan West", "Jio India Central", "Jio India West",
	"Korea Central", "Korea South", "Malaysia West", "Mexico Central", "New Zealand North", "North Central US",
	"North Central US (Stage)", "North Europe", "Norway East", "Norway West", "Poland Central", "Qatar Central",
	"South Africa North", "South Africa West", "South Central US", "South India", "Southeast Asia", "Spain Central",
	"Sweden Central", "Sweden South", "Switzerland North", "Switzerland West", "UAE Central", "UAE North", "UK South",
	"UK West", "West Central US", "West Europe", "West India", "West US", "West US 2", "West US 3",
}

// Regions returns the display names of the locations that clients can choose.
func Regions() []string { return append([]string{"Local"}, regions...) }

// RegionName returns the short form of a location: "koreacentral" of "Korea Central".
func RegionName(location string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ()", r) {
			return -1
		}
		return unicode.ToLower(r)
	}, location)
}

// displayNames maps short forms to long ones.
var displayNames = func() map[string]string {
	names := map[string]string{}
	for _, r := range Regions() {
		names[RegionName(r)] = r
	}
	return names
}()

// displayRegion returns the long form. A location that is not a region of Azure is returned unchanged.
func displayRegion(location string) string {
	return cmp.Or(displayNames[RegionName(location)], location)
}
