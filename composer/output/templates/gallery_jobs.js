(() => {
  // The jobs that run now, as long as somebody looks.
  const place = document.getElementById("jobs"), list = place.querySelector("ul");
  const row = ({ name, state, progress }) => {
    const made = document.createElement("li"), who = document.createElement("bdi"), word = document.createElement("span");
    const done = document.createElement("progress");
    who.textContent = name;
    word.textContent = `${state} ${Math.round(progress * 100)}%`;
    word.className = "dim number";
    Object.assign(done, { max: 1, value: progress });
    done.setAttribute("aria-label", name);
    made.append(who, word, done);
    return made;
  };
  const ask = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(place.dataset.from, { cache: "no-store", credentials: "omit" });
        const { jobs, more } = await answer.json();
        list.replaceChildren(...jobs.map(row));
        if (more) list.append(Object.assign(document.createElement("li"), { textContent: `and ${more} more` }));
        place.hidden = jobs.length === 0;
      } catch {
        place.hidden = true; // the server has ended
      }
    }
    setTimeout(ask, 2000);
  };
  ask();
})();
