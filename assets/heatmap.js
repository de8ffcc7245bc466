// Lays the heatmap over the photo. The server sends it in a part of its own, since photo and map come at different times.
const layers = document.querySelector("#photo .dd-photo-layers");

watch("value", () => layers.replaceChildren(...[...element.querySelectorAll("img")].map((image) => image.cloneNode())));
