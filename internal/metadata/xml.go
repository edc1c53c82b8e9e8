package metadata

import (
	"fmt"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/ocf"
)

const textWidth = 78

// documentType makes the document valid by itself: ocf-tester runs xmllint --valid, and the only DTD that resource-agents ships,
// ra-api-1.dtd, is of OCF 1.0, without select, unique-group, reloadable and reload-agent.
const documentType = `DOCTYPE resource-agent [
<!ELEMENT resource-agent (version,longdesc,shortdesc,parameters,actions)>
<!ATTLIST resource-agent name CDATA #REQUIRED version CDATA #IMPLIED>
<!ELEMENT version (#PCDATA)>
<!ELEMENT longdesc (#PCDATA)>
<!ATTLIST longdesc lang NMTOKEN #IMPLIED>
<!ELEMENT shortdesc (#PCDATA)>
<!ATTLIST shortdesc lang NMTOKEN #IMPLIED>
<!ELEMENT parameters (parameter*)>
<!ELEMENT parameter (longdesc,shortdesc,content)>
<!ATTLIST parameter name CDATA #REQUIRED required (0|1) #IMPLIED unique-group CDATA #IMPLIED reloadable (0|1) #IMPLIED>
<!ELEMENT content (option*)>
<!ATTLIST content type (string|integer|boolean|select) #REQUIRED default CDATA #IMPLIED>
<!ELEMENT option EMPTY>
<!ATTLIST option value CDATA #REQUIRED>
<!ELEMENT actions (action*)>
<!ELEMENT action EMPTY>
<!ATTLIST action name NMTOKEN #REQUIRED timeout CDATA #REQUIRED interval CDATA #IMPLIED depth CDATA #IMPLIED>
]`

// XML returns the meta-data document of OCF 1.1 ("Resource Agent Meta-Data"), with its elements in the order of the standard's schema.
// version is the agent's own; it may be empty.
func XML(version string) ([]byte, error) {
	doc := etree.NewDocument()
	doc.WriteSettings = etree.WriteSettings{CanonicalText: true, CanonicalAttrVal: true} // no &apos; in prose
	doc.CreateProcInst("xml", `version="1.0"`)
	doc.CreateDirective(documentType)
	agent := doc.CreateElement("resource-agent")
	agent.CreateAttr("name", agentName)
	if version = ocf.OneLine(version); version != "" {
		agent.CreateAttr("version", version)
	}
	agent.CreateElement("version").SetText("1.1")
	describe(agent, paragraphs(agentLong), agentShort)

	parameters := agent.CreateElement("parameters")
	for _, p := range Parameters() {
		p.addTo(parameters)
	}
	actions := agent.CreateElement("actions")
	for _, a := range Actions() {
		a.addTo(actions)
	}

	doc.Indent(2)
	document, err := doc.WriteToBytes()
	if err != nil {
		return nil, fmt.Errorf("write meta-data: %w", err)
	}
	return document, nil
}

func (p Parameter) addTo(parameters *etree.Element) {
	e := parameters.CreateElement("parameter")
	e.CreateAttr("name", p.Name)
	if p.UniqueGroup != "" {
		e.CreateAttr("unique-group", p.UniqueGroup)
	}
	e.CreateAttr("required", bit(p.Required))
	e.CreateAttr("reloadable", bit(p.Reloadable))
	describe(e, p.manual(), p.Short)
	content := e.CreateElement("content")
	content.CreateAttr("type", p.ContentType())
	if p.Default != "" {
		content.CreateAttr("default", p.Default)
	}
	for _, option := range p.Options {
		content.CreateElement("option").CreateAttr("value", option.Value)
	}
}

func (a Action) addTo(actions *etree.Element) {
	e := actions.CreateElement("action")
	e.CreateAttr("name", a.Name)
	e.CreateAttr("timeout", seconds(a.Timeout))
	if a.Interval != 0 {
		e.CreateAttr("interval", seconds(a.Interval))
	}
	if a.Depth != "" {
		e.CreateAttr("depth", a.Depth)
	}
}

func describe(e *etree.Element, long []string, short string) {
	longdesc := e.CreateElement("longdesc")
	longdesc.CreateAttr("lang", "en")
	longdesc.SetText("\n" + wrapAll(long, "", textWidth) + "\n")
	shortdesc := e.CreateElement("shortdesc")
	shortdesc.CreateAttr("lang", "en")
	shortdesc.SetText(short)
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
