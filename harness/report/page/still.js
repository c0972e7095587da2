"use strict";
// Nothing on this page needs a script but the switch of the theme, which theme.js has already set up.
document.documentElement.classList.add("scripted");
document.documentElement.dataset.ready = "";
