// Light or dark before the first paint: what was chosen last, else what the system says.
const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
