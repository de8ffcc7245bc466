// Who chose a photo and did nothing since is led to its answer; nobody else is taken from where they are.
const CHOICES = "#photo, #photo-examples";
let hadAnswer = false;

watch("value", () => {
  const answer = element.querySelector(".dd-answer");
  const isNew = answer && !hadAnswer;
  hadAnswer = Boolean(answer);
  const now = document.activeElement;
  if (!isNew || !element.checkVisibility() || !(now === document.body || now.closest(CHOICES))) return;
  const title = element.querySelector("h2");
  title.tabIndex = -1;
  // On a phone, photo and state stay in sight.
  title.focus({ preventScroll: true });
});
