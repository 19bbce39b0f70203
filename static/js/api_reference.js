// Shows the API in Swagger UI, in place of the list from the server and in the theme of the page.
const root = document.documentElement;
const list = document.querySelector("[data-api-list]");
const viewer = document.querySelector("[data-api-viewer]");
const dark = matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const { theme } = root.dataset;
  root.classList.toggle("dark-mode", theme === "system" ? dark.matches : theme === "dark");
}

// The viewer itself filters by the names of groups only.
function filterOperations(groups, phrase) {
  const words = phrase.toLowerCase().split(/\s+/);
  const isFound = (operation, name) => {
    const text = [name, operation.get("method"), operation.get("path"), operation.getIn(["operation", "summary"])];
    return words.every((word) => text.join(" ").toLowerCase().includes(word));
  };
  return groups
    .map((group, name) => group.update("operations", (all) => all.filter((one) => isFound(one, name))))
    .filter((group) => group.get("operations").size);
}

// The viewer's own way there knows nothing of the bar above the page.
function scrollToElement(element) {
  setTimeout(() => element.scrollIntoView());
  return { type: "scrolled" };
}

// The viewer's own list of more than 150 lines holds only those in the window, which neither the browser's search
// nor a link to an operation finds.
function listOperations(React, system) {
  const { specSelectors, oas3Selectors, layoutSelectors, layoutActions, getConfigs, getComponent } = system;
  const Operation = getComponent("OperationContainer", true);
  const Group = getComponent("OperationTag");
  const groups = specSelectors.taggedOperations().map((group, tag) => {
    const operations = group.get("operations").map((op) => {
      const [path, method, specPath] = ["path", "method", "specPath"].map((name) => op.get(name));
      return React.createElement(Operation, { key: `${path} ${method}`, tag, op, path, method, specPath });
    });
    const shared = { oas3Selectors, layoutSelectors, layoutActions, getConfigs, getComponent };
    const content = React.createElement("div", { className: "operation-tag-content" }, operations.toArray());
    const props = { key: tag, tag, tagObj: group, specUrl: specSelectors.url(), ...shared };
    return React.createElement(Group, props, content);
  });
  return React.createElement("div", null, groups.valueSeq().toArray());
}

function show() {
  viewer.hidden = false;
  list.hidden = true;
  const field = viewer.querySelector(".operation-filter-input");
  field.placeholder = "Filter operations";
  field.setAttribute("aria-label", "Filter operations");
  field.dataset.shortcut = "/";
}

followTheme();
dark.addEventListener("change", followTheme);
new MutationObserver(followTheme).observe(root, { attributeFilter: ["data-theme"] });
SwaggerUIBundle({
  url: document.querySelector("[data-api-document]").getAttribute("href"),
  domNode: viewer.querySelector("[data-api-root]"),
  layout: "OperationsLayout",
  syntaxHighlight: { theme: "arta" },
  deepLinking: true,
  filter: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  plugins: [
    ({ React, getComponent }) => ({
      components: {
        // the viewer's own has a second `main`, and what the page says itself
        OperationsLayout: () =>
          React.createElement(
            "div",
            { className: "swagger-ui" },
            ...["FilterContainer", "operations", "Models"].map((name) =>
              React.createElement(getComponent(name, true), { key: name }),
            ),
          ),
        operations: (system) => listOperations(React, system),
        // looked up for each file of a list, and missed in the console
        JsonSchema_string_binary: (field) => React.createElement(getComponent("JsonSchema_string"), field),
      },
      fn: { opsFilter: filterOperations },
      // The path of an operation is in the button that opens it, which cannot contain a link.
      wrapComponents: {
        DeepLink: (Link) => (link) =>
          link.path.includes("/") ? React.createElement("span", null, link.text) : React.createElement(Link, link),
      },
      statePlugins: { layout: { wrapActions: { scrollToElement: () => scrollToElement } } },
    }),
  ],
  onComplete: show,
});
