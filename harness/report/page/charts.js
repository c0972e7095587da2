// Charts are drawn by the library that the page carries for them. Their specifications name no colours: the theme does.

const AHEAD_PX = 600; // charts nearer to the screen than this are drawn

function drawCharts() {
  const figures = findAll("figure.chart");
  if (!figures.length) return;
  const themes = JSON.parse(find("#chart-themes").textContent);
  const draw = async (figure) => {
    const theme = isDark() && !matchMedia("print").matches ? "dark" : "light";
    if (figure.dataset.drawn === theme) return;
    figure.dataset.drawn = theme;
    const spec = JSON.parse(find("script", figure).textContent);
    await vegaEmbed(find(".drawing", figure), spec, {
      ast: true, // no evaluation of strings as code: the page's policy forbids it
      logLevel: 1, // errors only: of what a layout drops nobody needs to hear
      actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true }, config: themes[theme],
    });
  };
  const near = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) near.delete(target);
      else { near.add(target); draw(target); }
    }
  }, { rootMargin: `${AHEAD_PX}px` });
  for (const figure of figures) observer.observe(figure);
  const again = () => near.forEach(draw);
  document.addEventListener("themechange", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", () => figures.forEach(draw));
}
