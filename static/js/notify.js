// A browser notification when a run ends, if the person asked for it with the button on the page of a
// run. Any open page shows it, one of them only: the status strip brings the runs that have ended.
const ON = "notify-runs";
const SHOWN = "notified-runs"; // keys of the ends that were shown in this browser
const KEPT = 50;

const isOn = () => localStorage.getItem(ON) === "1" && window.Notification?.permission === "granted";
const endedIn = (page) => JSON.parse(page.getElementById("running")?.dataset.ended ?? "[]");

// Those that no tab has shown before: one at a time. Where notifications exist, so do locks.
function newOf(ended) {
  return navigator.locks.request(SHOWN, () => {
    const shown = JSON.parse(localStorage.getItem(SHOWN) ?? "[]");
    const news = ended.filter((run) => !shown.includes(run.key));
    localStorage.setItem(SHOWN, JSON.stringify([...shown, ...news.map((run) => run.key)].slice(-KEPT)));
    return news;
  });
}

function show(title, options, href) {
  const icon = document.querySelector("link[rel=icon]").href;
  const notification = new Notification(title, { icon, ...options });
  notification.addEventListener("click", () => {
    if (!href || location.pathname === href) window.focus();
    else window.open(href); // this tab may hold what somebody typed
    notification.close();
  });
}

async function check() {
  const ended = endedIn(document);
  if (!ended.length || !isOn()) return;
  for (const run of await newOf(ended)) show(run.title, { body: run.text, tag: `run ${run.key}` }, run.href);
}

document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.id === "running" && isOn()) event.detail.parameters.ended = "true";
});
document.addEventListener("htmx:afterSwap", check);

// the bell; it stays where the rest of the head is replaced
function startBell(button) {
  let told; // the message about the last click
  const NOTES = {
    insecure:
      "Browsers allow notifications only on pages with HTTPS, or at localhost. Open Brushwork at such an address.",
    unsupported: "This browser has no notifications for web pages.",
    denied: "This browser blocks notifications from here. Allow them in its settings for this site, then reload the page.",
    on: "On: while a page of Brushwork is open in this browser, it tells you when a run ends.",
    off: "Off: no notification comes when a run ends.",
  };

  function state() {
    if (!window.isSecureContext) return "insecure";
    if (!window.Notification) return "unsupported";
    if (Notification.permission === "denied") return "denied";
    return isOn() ? "on" : "off";
  }

  function update(now = state()) {
    button.setAttribute("aria-pressed", String(now === "on"));
    button.setAttribute("aria-disabled", String(!["on", "off"].includes(now)));
    button.title = NOTES[now];
  }

  async function turnOn() {
    if (Notification.permission === "default") await Notification.requestPermission();
    if (Notification.permission !== "granted") return update();
    try {
      show("Brushwork tells you here when a run ends.", { tag: ON });
    } catch {
      return update("unsupported"); // as on phones, which show those of installed apps only
    }
    // what has ended by now is no news
    const answer = await window.brushwork.fetch("/running?ended=true", { headers: { "HX-Request": "true" } });
    await newOf(endedIn(new DOMParser().parseFromString(await answer.text(), "text/html")));
    localStorage.setItem(ON, "1");
    return update();
  }

  button.addEventListener("click", async () => {
    if (state() === "off") await turnOn();
    else {
      if (state() === "on") localStorage.setItem(ON, "0");
      update();
    }
    told?.remove();
    told = window.brushwork.toast(button.title);
  });
  addEventListener("storage", (event) => {
    if (event.key === ON) update();
  });
  button.hidden = false;
  update();
}

const bell = document.getElementById("notify");
if (bell) startBell(bell);
