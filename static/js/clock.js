// Names the browser's time zone to the server, so that pages tell the time as the person's clock does. The page of a
// first visit told it as the server's does: its times are asked for once more, before a poll replaces some of them.
(async () => {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const cookie = `zone=${timeZone}`;
  if (!timeZone || document.cookie.split("; ").includes(cookie)) return;
  document.cookie = `${cookie}; path=/; max-age=31536000; samesite=lax`;
  const times = document.querySelectorAll("time");
  if (!times.length) return;
  const answer = await window.brushwork.fetch(location.href).catch(() => null);
  const page = new DOMParser().parseFromString((await answer?.text()) ?? "", "text/html");
  const told = new Map([...page.querySelectorAll("time")].map((time) => [time.dateTime, time]));
  for (const time of times) {
    time.textContent = told.get(time.dateTime)?.textContent ?? time.textContent;
    time.title = told.get(time.dateTime)?.title ?? time.title;
  }
})();
