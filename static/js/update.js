// Tells once, without a reload, that Brushwork was updated while this page was open. Each answer names
// the build that made it, and so does the head of the page. Scripts request with `brushwork.fetch` and `brushwork.post`;
// those that need an XMLHttpRequest give it to `brushwork.checkBuild`, as this does for htmx.
const HEADER = "Brushwork-Build";
const TEXT = "Brushwork was updated. Reload this page when you are done; what you typed stays until then.";
const build = document.querySelector("meta[name=brushwork-build]").content;
let isTold = false;

function tell() {
  isTold = true;
  const reload = window.brushwork.makeButton("Reload", () => location.reload());
  window.brushwork.toast(TEXT).lastElementChild.before(reload);
}

// no header: a proxy answered, or an older Brushwork
function check(answered) {
  if (answered && answered !== build && !isTold) tell();
}

async function checkedFetch(...request) {
  const answer = await fetch(...request);
  check(answer.headers.get(HEADER));
  return answer;
}

// the fields of a form, answered with JSON
function post(address, fields, options) {
  const headers = { Accept: "application/json" };
  return checkedFetch(address, { method: "POST", headers, body: new URLSearchParams(fields), ...options });
}

const checkBuild = (xhr) => check(xhr.getResponseHeader(HEADER));
document.addEventListener("htmx:beforeOnLoad", (event) => checkBuild(event.detail.xhr));
Object.assign(window.brushwork, { fetch: checkedFetch, post, checkBuild });
