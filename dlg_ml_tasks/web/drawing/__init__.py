"""Pictures that the server draws itself, as SVG that follows the page's colours and needs no script."""
